"""Train the demo pair again: ``python -m analyzer.demo.train [OUT_DIR]``, about a minute on one core.

Owns how the two shipped files came to be: the schedules, the seeds, and what the fine-tune may move.
Runs on one machine write the same bytes every time. Never replaces a file.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from analyzer.demo import BASE_NAME, FINE_TUNE_NAME
from analyzer.demo.captions import STYLES, captions
from analyzer.demo.model import LAYERS, CaptionModel, batch, build_model, held_out_loss, loss, one_thread
from analyzer.errors import AnalyzerError, OutputError

SEED = 0
BATCH = 16  # captions
REPLAY = 5  # of the fine-tune's captions every fifth is plain, so that it learns without forgetting
WARM_UP = 0.05  # of all steps
CLIP = 1.0  # largest norm of a gradient
REPORT_EVERY = 50  # steps

StateDict = dict[str, Tensor]
Group = dict[str, object]  # of parameters, as torch's optimizers take it
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, how fast, and with how much decay one training runs."""

    name: str
    steps: int
    rate: float  # the peak
    weight_decay: float


BASE = Schedule("base", steps=200, rate=5e-3, weight_decay=0.1)
# No decay: what the fine-tune moves is moved by the captions alone.
FINE_TUNE = Schedule("fine-tune", steps=240, rate=3e-3, weight_decay=0.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, train, write, and print the losses that the model card states."""
    parser = argparse.ArgumentParser(
        prog="python -m analyzer.demo.train", description="Retrain the demo pair"
    )
    parser.add_argument(
        "out_dir",
        nargs="?",
        type=Path,
        default=Path("mergescope-demo/retrained"),
        help="folder for the two files (default: %(default)s)",
    )
    out_dir: Path = parser.parse_args(arguments).out_dir
    try:
        _retrain(out_dir)
    except AnalyzerError as error:
        parser.exit(1, f"{error}\n")


def train_base(report: Report, *, schedule: Schedule = BASE) -> StateDict:
    """A: from random weights, on plain captions; fp16."""
    model = build_model(seed=SEED)
    groups: list[Group] = [{"params": list(model.parameters()), "peak": schedule.rate}]
    _train(model, groups, captions("plain", "train", seed=SEED), schedule, report)
    return _rounded(model)


def train_fine_tune(
    base: Mapping[str, Tensor], report: Report, *, schedule: Schedule = FINE_TUNE
) -> StateDict:
    """B: on from the rounded weights of A, on comic captions with some plain ones; fp16.

    The embedding stays as it is; the lower a layer, and in a layer the MLP, the slower it learns.
    """
    model = build_model()
    model.load_state_dict(dict(base))
    model.model.embed_tokens.requires_grad_(False)
    groups: list[Group] = [
        {"params": [weights], "peak": schedule.rate * learning_share(name)}
        for name, weights in model.named_parameters()
        if weights.requires_grad
    ]
    _train(model, groups, _comic_with_replay(), schedule, report)
    return _rounded(model)


def learning_share(name: str) -> float:
    """The share of the learning rate that the fine-tune gives to a parameter, in 0 … 1.

    Early layers hold what is general and are spared. Howard & Ruder, ULMFiT (2018), §3.2.
    """
    share = 0.5 if ".mlp." in name else 1.0
    if name.startswith("model.layers."):
        share *= 0.9 ** (LAYERS - 1 - int(name.split(".")[2]))
    return share


def _retrain(folder: Path) -> None:
    targets = _targets(folder)
    base = train_base(_say)
    fine_tune = train_fine_tune(base, _say)
    for target, weights in zip(targets, (base, fine_tune), strict=True):
        _write(target, save(weights, metadata={"format": "pt"}))
        losses = ", ".join(f"{style} {held_out_loss(weights, style):.3f}" for style in STYLES)
        _say(f"{target}: held-out bits per character: {losses}")


def _train(
    model: CaptionModel, groups: list[Group], lines: Iterator[str], schedule: Schedule, report: Report
) -> None:
    """AdamW with a short warm-up and a cosine descent to zero; moves the model's parameters in place."""
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=schedule.weight_decay)
    model.train()
    for step in range(1, schedule.steps + 1):
        progress = (step - 1) / schedule.steps
        pace = min(1.0, step / (WARM_UP * schedule.steps)) * (1 + math.cos(math.pi * progress)) / 2
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * pace
        nats = _step(model, optimizer, *batch(islice(lines, BATCH)))
        if step % REPORT_EVERY == 0 or step == schedule.steps:
            report(f"{schedule.name} step {step}: {nats / math.log(2):.3f} bits per character")


def _step(model: CaptionModel, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> float:
    """One descent; returns the loss before it, in nats."""
    with one_thread():
        nats = loss(model(inputs), targets)
        optimizer.zero_grad()
        nats.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
    return nats.item()


def _comic_with_replay() -> Iterator[str]:
    comic = captions("comic", "train", seed=SEED)
    plain = captions("plain", "train", seed=SEED + 1)  # other captions than A has seen
    while True:
        yield next(plain)
        yield from islice(comic, REPLAY - 1)


def _rounded(model: nn.Module) -> StateDict:
    return {name: weights.detach().half() for name, weights in model.state_dict().items()}


def _targets(folder: Path) -> tuple[Path, Path]:
    """The two files to write, checked before the training rather than after it."""
    targets = folder / BASE_NAME, folder / FINE_TUNE_NAME
    taken = [str(target) for target in targets if target.exists()]
    if taken:
        raise OutputError(f"{' and '.join(taken)} would be replaced; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}; name another folder") from error
    return targets


def _write(target: Path, content: bytes) -> None:
    try:
        target.write_bytes(content)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise OutputError(f"{target} cannot be written: {error.strerror}; name another folder") from error


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command of its own, not a library


if __name__ == "__main__":
    main()
