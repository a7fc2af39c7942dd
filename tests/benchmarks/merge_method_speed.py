"""How long the merge methods take for one element: survey and combination, one thread, chunks as in a merge.

python tests/benchmarks/merge_method_speed.py
"""

from __future__ import annotations

from time import perf_counter

import numpy as np

from analyzer.kernels.backends import CPU_CHUNK
from analyzer.methods import METHODS, GramSurvey, Operands, Setting, combine_linear

ROWS, COLUMNS, CHUNKS, REPEATS = 1024, 1024, 8, 5
SOME = {"density": 0.3}


def operands(models: int, based: bool) -> list[Operands]:
    """A tensor in chunks: A, B, further models and a base that differ by a tenth."""
    r = np.random.default_rng(0)
    size = CPU_CHUNK * CHUNKS
    c = r.normal(size=size)
    tensors = [c + 0.1 * r.normal(size=size) for _ in range(2 + models)]
    found = []
    for start in range(0, size, CPU_CHUNK):
        a, b, *others = (np.ascontiguousarray(x[start : start + CPU_CHUNK]) for x in tensors)
        base = c[start : start + CPU_CHUNK] if based else a
        found.append(Operands(a, b, base, tuple(others), "k", start, (ROWS, COLUMNS)))
    return found


def main() -> None:
    """Print a table."""
    print(f"{'method':20s} {'survey ns':>10s} {'combine ns':>10s}")  # noqa: T201
    for name, method in METHODS.items():
        models, based = int(method.models == "must"), method.base != "no"
        parameters = {key: SOME.get(key, p.default) for key, p in method.parameters.items()}
        setting = Setting(0.5, (0.25,) * models, parameters, based)
        pieces = operands(models, based)
        size = sum(len(piece.a) for piece in pieces)
        survey = GramSurvey() if method.needs_gram else method.survey
        best = [np.inf, np.inf]
        for _ in range(REPEATS):
            begun, known = perf_counter(), None
            if survey is not None and survey.needed(setting):
                state = survey.begin(setting, size)
                for turn in range(survey.turns):
                    for piece in pieces:
                        survey.observe(state, piece, turn)
                known = survey.conclude({"k": state})["k"]
            middle = perf_counter()
            for piece in pieces:
                if method.coefficients is not None:
                    combine_linear(piece, method.coefficients(setting, known))
                elif method.combine is not None:
                    method.combine(piece, setting, known)
            ended = perf_counter()
            best = [min(best[0], middle - begun), min(best[1], ended - middle)]
        print(f"{name:20s} {best[0] / size * 1e9:10.1f} {best[1] / size * 1e9:10.1f}")  # noqa: T201


if __name__ == "__main__":
    main()
