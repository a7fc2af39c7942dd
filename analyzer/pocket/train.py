"""Train the pocket pair: `python -m analyzer.pocket.train FOLDER`.

Draws the pictures, trains the text encoder, the autoencoder, A, and B from A, and writes
`base.safetensors` and `fine-tune.safetensors` into the folder. Its subfolder `work` holds the pictures and
checkpoints: an interrupted run goes on where it stopped. Needs `pip install 'mergescope[pocket]'`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analyzer.pocket import BASE_NAME, FINE_TUNE_NAME, networks
from analyzer.pocket.captions import FEATURES, Style, caption, choose, named
from analyzer.pocket.folders import single_file, tokenizer
from analyzer.pocket.portraits import draw
from analyzer.pocket.training import (
    Latents,
    Loss,
    Report,
    Run,
    Schedule,
    autoencoder_loss,
    decoder_loss,
    denoiser_loss,
    encode,
    reading_loss,
    scale_latents,
    stacked,
)

SEED = 0
CAPTIONS = 4  # of each picture, with other tags left out
PICTURES: Mapping[Style, int] = {"shaded": 24_000, "flat": 16_000}
TEXTS = 40_000  # that the text encoder learns to read, half of each style
# The stages, and the names of their checkpoints.
TEXT, WINDOWS, AUTOENCODER, DECODER = "text", "windows", "autoencoder", "decoder"
BASE, FINE_TUNE = "base", "fine-tune"
SCHEDULES: Mapping[str, Schedule] = {
    TEXT: Schedule(steps=3000, rate=1e-3, batch=64, decay=0.01),
    WINDOWS: Schedule(steps=7500, rate=2e-3, batch=16),
    AUTOENCODER: Schedule(steps=1000, rate=1e-3, batch=8),
    BASE: Schedule(steps=6000, rate=1.2e-3, batch=32, decay=0.01, average=0.9995),
    FINE_TUNE: Schedule(steps=2000, rate=5e-4, batch=32, average=0.999),
    DECODER: Schedule(steps=5000, rate=1.5e-3, batch=8),
}
# Of a picture, the pixels a side that the autoencoder looks at. Windows first: four times as many steps in
# the same time, for what is local; then whole pictures.
_VIEWS = {WINDOWS: 32, AUTOENCODER: 64}
APART = (TEXT, AUTOENCODER, DECODER)  # need nothing of A or B: a second process can train them
_A_PORTION = 64  # pictures that a process draws at a time


def main(arguments: list[str] | None = None) -> None:
    """Train both and write them; exits with one sentence if a file would be replaced."""
    parser = argparse.ArgumentParser(description="Train the pocket pair; goes on where it stopped.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, help="of torch; default: its own")
    parser.add_argument(
        "--stage", choices=APART, help="only this one, and the autoencoder if it is the decoder's turn"
    )
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    work = options.folder / "work"
    for name, file in ((BASE, BASE_NAME), (FINE_TUNE, FINE_TUNE_NAME)):
        # Beside its own checkpoint it is what an earlier run of this training has written.
        if (options.folder / file).exists() and not (work / f"{name}.pt").exists():
            sys.exit(f"{options.folder / file} would be replaced; name another folder")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"{options.folder} cannot be made: {error.strerror}; name another folder")
    train(options.folder, report=_say, only=options.stage)


def train(
    folder: Path,
    *,
    report: Report,
    pictures: Mapping[Style, int] = PICTURES,
    texts: int = TEXTS,
    schedules: Mapping[str, Schedule] = SCHEDULES,
    only: str | None = None,
) -> None:
    """All stages, in a folder that has a subfolder `work`; what is done already is not done again.

    `pictures` says how many to draw of each style. Writes both models, and the losses, the mean of every 250
    steps, into `work/losses.json`. With `only` a stage of `APART` it trains no other than that one (and the
    autoencoder before its decoder), and writes no model.
    """
    work = folder / "work"
    if only == TEXT:
        _text_encoder(texts, schedules[TEXT], work, report)
        return
    drawn = {style: _data(style, count, work, report) for style, count in pictures.items()}
    both = torch.cat(_alike([pictures for pictures, _ in drawn.values()]))
    vae, losses = _autoencoder(both, schedules, work, report)
    if only:
        if only == DECODER:
            _better_decoder(vae, drawn, schedules[DECODER], work, report)
        return
    text = _text_encoder(texts, schedules[TEXT], work, report)
    losses = {TEXT: text.losses, **losses}
    stages: tuple[tuple[str, Style, str], ...] = (
        (BASE, "shaded", BASE_NAME), (FINE_TUNE, "flat", FINE_TUNE_NAME),
    )  # fmt: skip
    unets: dict[str, Any] = {}

    def prepare(style: Style, unet: Any, schedule: Schedule) -> Loss:
        pictures, tokens = drawn[style]
        return denoiser_loss(unet, text.network, _latents(vae, style, pictures, work), tokens, schedule)

    weights: dict[str, Tensor] | None = None
    for number, (name, style, file) in enumerate(stages, 1):
        unet, schedule = networks.unet(), schedules[name]
        whole = nn.ModuleDict({"unet": unet})
        if weights is not None:
            whole.load_state_dict(weights)
        run = Run(name, whole, schedule, work, seed=SEED + number, report=report)
        weights = run.go(partial(prepare, style, unet, schedule))
        losses[name] = run.losses
        whole.load_state_dict(weights)
        unets[file] = unet
    losses[DECODER] = _better_decoder(vae, drawn, schedules[DECODER], work, report)
    for file, unet in unets.items():
        single_file(unet, text.network, vae, folder / file)
        report(f"wrote {folder / file}")
    (work / "losses.json").write_text(json.dumps(losses, indent=1), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Trained:
    """A network and how its training went."""

    network: Any
    losses: list[float]


def _text_encoder(count: int, schedule: Schedule, work: Path, report: Report) -> _Trained:
    """One for both models, that has learned to tell what captions name. Needs no pictures."""
    torch.manual_seed(SEED)
    network = networks.text_encoder(len(tokenizer()))
    sizes = [1 + len(values) for values in FEATURES.values()]
    answers = nn.Linear(networks.TEXT_WIDTH, sum(sizes))
    whole = nn.ModuleDict({"text": network, "answers": answers})
    run = Run(TEXT, whole, schedule, work, seed=SEED + 4, report=report)

    def prepare() -> Loss:
        texts = _texts(count)
        found = torch.tensor([named(text) for text in texts], dtype=torch.int8)
        tokens = torch.from_numpy(_tokens(texts))
        return reading_loss(network, answers, tokens, found, sizes, schedule)

    whole.load_state_dict(run.go(prepare))
    network.eval().requires_grad_(False)
    return _Trained(network, run.losses)


def _texts(count: int) -> list[str]:
    """Captions as both styles have them, of pictures that nobody draws."""
    rng = np.random.default_rng((SEED, 2))
    styles: tuple[Style, Style] = ("shaded", "flat")
    return [caption(choose(styles[number % 2], rng), rng) for number in range(count)]


def _tokens(texts: list[str]) -> NDArray[np.int16]:
    """Token numbers, (n × 32)."""
    ids = tokenizer()(texts, padding="max_length", truncation=True, max_length=networks.TOKENS)["input_ids"]
    return np.array(ids, np.int16)


def _autoencoder(
    pictures: Tensor, schedules: Mapping[str, Schedule], work: Path, report: Report
) -> tuple[Any, dict[str, list[float]]]:
    """One for both models, so that their latents can be compared; and the losses of its stages."""
    torch.manual_seed(SEED)
    network = networks.vae()
    whole = nn.ModuleDict({"vae": network})
    losses: dict[str, list[float]] = {}
    for number, (stage, window) in enumerate(_VIEWS.items()):
        run = Run(stage, whole, schedules[stage], work, seed=SEED + 5 * number, report=report)
        prepare = partial(autoencoder_loss, network, pictures, schedules[stage], window=window)
        whole.load_state_dict(run.go(prepare))
        losses[stage] = run.losses
    network.eval().requires_grad_(False)
    means, _ = encode(network, pictures[:2000])
    scale_latents(network, float(means.double().std()))
    return network, losses


def _better_decoder(
    vae: Any, drawn: Mapping[Style, tuple[Tensor, Tensor]], schedule: Schedule, work: Path, report: Report
) -> list[float]:
    """Train the decoder on, the latents as they are; its losses."""
    parts = nn.ModuleDict({"post": vae.post_quant_conv, "decoder": vae.decoder})
    parts.requires_grad_(True)
    run = Run(DECODER, parts, schedule, work, seed=SEED + 3, report=report)

    def prepare() -> Loss:
        found = [_latents(vae, style, pictures, work) for style, (pictures, _) in drawn.items()]
        means, deviations = (torch.cat(_alike(list(part))) for part in zip(*found, strict=True))
        pictures = torch.cat(_alike([pictures for pictures, _ in drawn.values()]))
        return decoder_loss(vae, pictures, (means, deviations), schedule)

    parts.load_state_dict(run.go(prepare))
    vae.eval().requires_grad_(False)
    return run.losses


def _alike(styles: list[Tensor]) -> list[Tensor]:
    """As many of each style."""
    few = min(map(len, styles))
    return [rows[:few] for rows in styles]


def _latents(vae: Any, style: Style, pictures: Tensor, work: Path) -> Latents:
    """Of all pictures of a style, kept in a file: to encode them takes minutes."""
    file = work / f"{style}-latents.pt"
    if not file.exists():
        unfinished = work / f"{style}-latents.{os.getpid()}"  # two stages may come here at once
        torch.save(encode(vae, pictures), unfinished)
        unfinished.replace(file)
    means, deviations = torch.load(file, weights_only=True)
    return means, deviations


def _data(style: Style, count: int, work: Path, report: Report) -> tuple[Tensor, Tensor]:
    """Pictures (n × 3 × 64 × 64) uint8 and tokens of their captions (n × captions × 32), kept in a file."""
    file = work / f"{style}.npz"
    if not file.exists():
        report(f"draws {count} {style} pictures")
        found = _pictures(style, count)
        texts = [text for _, captions in found for text in captions]
        tokens = _tokens(texts).reshape(count, CAPTIONS, networks.TOKENS)
        unfinished = work / f"{style}.unfinished.npz"
        np.savez(unfinished, pictures=stacked(picture for picture, _ in found).numpy(), tokens=tokens)
        unfinished.replace(file)
    with np.load(file) as data:
        return torch.from_numpy(data["pictures"]), torch.from_numpy(data["tokens"])


def _pictures(style: Style, count: int) -> list[tuple[NDArray[np.uint8], list[str]]]:
    if count <= _A_PORTION:
        return [_picture(style, number) for number in range(count)]
    # Not by forking: torch has threads by now, and a fork of a process with threads may wait for ever.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_picture, [style] * count, range(count), chunksize=_A_PORTION))


def _picture(style: Style, number: int) -> tuple[NDArray[np.uint8], list[str]]:
    """One picture and its captions; depends on the style and the number alone."""
    rng = np.random.default_rng((SEED, style == "flat", number))
    portrait = choose(style, rng)
    return draw(portrait, style, rng), [caption(portrait, rng) for _ in range(CAPTIONS)]


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a script's own progress


if __name__ == "__main__":
    main()
