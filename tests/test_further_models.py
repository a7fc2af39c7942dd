"""Merges of more than two models are predicted too, and verified: from one more pass, against numpy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

Run = Callable[..., object]
SHAPES = {"x.weight": (300, 40), "x.bias": (40,), "y.weight": (20, 30)}


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    """Four models in fp64, the last without one of the keys, and a scan of the first two."""
    rng = np.random.default_rng(0)
    base = {key: rng.standard_normal(shape) for key, shape in SHAPES.items()}
    found = {}
    for name in ("a", "b", "c", "d"):
        near = {key: value + 0.2 * rng.standard_normal(value.shape) for key, value in base.items()}
        if name == "d":
            del near["y.weight"]
        found[name] = tmp_path / f"{name}.safetensors"
        save_file(near, found[name])
    return found


@pytest.mark.parametrize(
    ("method", "base"),
    [
        ("triple_sum", ""),
        ("sum_twice", ""),
        ("task_arithmetic", ""),
        ("task_arithmetic", "c"),
        ("model_stock", "c"),
    ],
)
def test_the_prediction_is_what_numpy_measures(
    method: str, base: str, run: Run, paths: dict[str, Path], tmp_path: Path
) -> None:
    """Norm, distances and cosines of the whole model, to 1e-9; and what is written is that."""
    scan, out = tmp_path / "scan.json", tmp_path / "o.safetensors"
    further = ("c", "d") if not base else ("d",)
    options = [text for name in further for text in ("--model", f"{paths[name]}=0.25")]
    options += ["--base", str(paths[base])] if base else []
    common = ("merge", paths["a"], paths["b"], "--method", method, "--alpha", "0.4", *options)
    assert 0 == run("scan", paths["a"], paths["b"], *options[-2:][: 2 * bool(base)], "-o", scan, "-q").code
    plan = json.loads(run(*common, "--scan", scan, "--dry-run", "--json").out)
    result = run(*common, "-o", out, "--verify")
    assert 0 == result.code, result.err
    assert "verified: 3 keys measured" in result.out
    a, b, m = (flat(load_file(path)) for path in (paths["a"], paths["b"], out))
    expected = {
        "norm": np.linalg.norm(m),
        "distance_a": np.linalg.norm(m - a) / np.linalg.norm(a),
        "distance_b": np.linalg.norm(m - b) / np.linalg.norm(b),
        "cosine_a": m @ a / np.linalg.norm(m) / np.linalg.norm(a),
        "cosine_b": m @ b / np.linalg.norm(m) / np.linalg.norm(b),
    }
    for name, value in expected.items():
        assert plan["prediction"][name] == pytest.approx(value, rel=1e-9), name


def flat(tensors: dict[str, np.ndarray]) -> np.ndarray:
    """All elements of a model, in one order of keys."""
    return np.concatenate([tensors[key].ravel() for key in SHAPES])


def test_nothing_more_is_read_without_need(
    run: Run, paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a dry run with a scan and a verification need the further models' sums."""
    from analyzer.prediction import further_models

    calls = []
    real = further_models.measure_grams
    monkeypatch.setattr(
        further_models, "measure_grams", lambda *args, **more: calls.append(1) or real(*args, **more)
    )
    scan = tmp_path / "scan.json"
    assert 0 == run("scan", paths["a"], paths["b"], "-o", scan, "-q").code
    common = ("merge", paths["a"], paths["b"], "--alpha", "0.4", "--scan", scan)
    further = ("--method", "triple_sum", "--model", f"{paths['c']}=0.25")
    assert 0 == run(*common, *further, "-o", tmp_path / "o.safetensors").code
    assert 0 == run(*common, "-o", tmp_path / "p.safetensors", "--verify").code
    assert [] == calls
    assert 0 == run(*common, *further, "--dry-run").code
    assert [1] == calls
