"""Train the pocket pair: `python -m analyzer.pocket.train FOLDER`.

Draws the pictures, trains the text encoder, the autoencoder, A, and B from A, and writes
`base.safetensors` and `fine-tune.safetensors` into the folder. Its subfolder `work` holds the pictures and
checkpoints: an interrupted run goes on where it stopped. Needs `pip install 'mergescope[pocket]'`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from analyzer.errors import AnalyzerError
from analyzer.pocket import BASE_NAME, FINE_TUNE_NAME, material, networks
from analyzer.pocket.captions import FEATURES, Style, named
from analyzer.pocket.folders import single_file, tokenizer
from analyzer.pocket.material import Drawn
from analyzer.pocket.training import (
    Latents,
    Loss,
    Report,
    Run,
    Schedule,
    autoencoder_loss,
    decoder_loss,
    denoiser_loss,
    digest,
    encode,
    reading_loss,
    scale_latents,
)
from analyzer.quiet import diffusers_library

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
    FINE_TUNE: Schedule(steps=1250, rate=5e-4, batch=32, average=0.999),
    DECODER: Schedule(steps=5000, rate=1.5e-3, batch=8),
}
_SEEDS = {WINDOWS: 0, BASE: 1, FINE_TUNE: 2, DECODER: 3, TEXT: 4, AUTOENCODER: 5}
# Of a picture, the pixels a side that the autoencoder looks at. Windows first: four times as many steps in
# the same time, for what is local; then whole pictures.
_VIEWS = {WINDOWS: 32, AUTOENCODER: 64}
_MEASURED = 2000  # pictures of A's style whose latents get a variance of one
APART = (TEXT, AUTOENCODER, DECODER)  # need nothing of A or B: a second process can train them


def main(arguments: list[str] | None = None) -> None:
    """Train both and write them; what cannot be done ends it with one sentence."""
    parser = argparse.ArgumentParser(description="Train the pocket pair; goes on where it stopped.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=_positive, help="of torch [its own choice]")
    parser.add_argument(
        "--stage", choices=APART,
        help="only this one, beside another process that trains the rest; the decoder after the autoencoder",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    work = options.folder / "work"
    for name, file in ((BASE, BASE_NAME), (FINE_TUNE, FINE_TUNE_NAME)):
        # Beside its own checkpoint it is what an earlier run of this training has written.
        if (options.folder / file).exists() and not (work / f"{name}.pt").exists():
            sys.exit(f"{options.folder / file} would be replaced; name another folder")
    try:
        diffusers_library("training")  # before the minutes that drawing takes
        work.mkdir(parents=True, exist_ok=True)
        if options.threads:
            torch.set_num_threads(options.threads)
        train(options.folder, report=_say, only=options.stage)
    except AnalyzerError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(
            f"{error.filename or options.folder} cannot be written: {error.strerror}; name another folder"
        )
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from the last checkpoint")


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
    autoencoder before its decoder), and writes no model. Raises CheckpointError if what the folder holds was
    made in another way, AnalyzerError if a loss is not finite, and OSError.
    """
    training = _Training(folder / "work", schedules, report)
    text = None
    if only in (None, TEXT):
        text = _text_encoder(training, texts)
        if only:
            return
    drawn = {style: material.drawn(style, count, training.work, report) for style, count in pictures.items()}
    vae = _autoencoder(training, drawn)
    unets = {} if only else _unets(training, vae, text, drawn)
    if only != AUTOENCODER:
        _better_decoder(training, vae, drawn)
    for file, unet in unets.items():
        single_file(unet, text, vae, folder / file)
        report(f"wrote {folder / file}")
    if not only:
        losses = json.dumps(training.losses, indent=1)
        (training.work / "losses.json").write_text(losses + "\n", encoding="utf-8")


class _Training:
    """Where the stages are kept, how long each takes, and what their losses were."""

    def __init__(self, work: Path, schedules: Mapping[str, Schedule], report: Report) -> None:
        self.work = work
        self.report = report
        self.losses: dict[str, list[float]] = {}
        self.autoencoder = ""  # the digest of its weights, without the factor that is folded into them later
        self._schedules = schedules

    def run(
        self, stage: str, prepare: Callable[[Schedule], Loss], *, after: str = "", **modules: nn.Module
    ) -> None:
        """Train the modules to the end of a stage and leave its averaged weights in them, fixed.

        `after` names the weights that it builds on, in whose place no others may come.
        """
        schedule, whole = self._schedules[stage], nn.ModuleDict(modules)
        run = Run(
            stage, whole, schedule, self.work, seed=_SEEDS[stage], report=self.report, after=after
        )  # fmt: skip
        whole.requires_grad_(True)
        whole.load_state_dict(run.go(lambda: prepare(schedule)))
        whole.eval().requires_grad_(False)
        self.losses[stage] = run.losses

    def latents(self, vae: Any, style: Style, seen: Drawn) -> Latents:
        """Of all pictures of a style, by the autoencoder."""
        return material.latents(vae, style, seen.pictures, self.work, self.autoencoder[:8], self.report)


def _new(build: Callable[[], nn.Module], stage: str) -> Any:
    """A network with random weights that depend on its stage alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEEDS[stage])
        return build()


def _text_encoder(training: _Training, count: int) -> Any:
    """One for both models, that has learned to tell what captions name. Needs no pictures."""
    network = _new(lambda: networks.text_encoder(len(tokenizer())), TEXT)
    sizes = [1 + len(values) for values in FEATURES.values()]
    answers = _new(lambda: nn.Linear(networks.TEXT_WIDTH, sum(sizes)), TEXT)

    def prepare(schedule: Schedule) -> Loss:
        texts = material.texts(count)
        found = torch.tensor([named(text) for text in texts], dtype=torch.int8)
        tokens = torch.from_numpy(material.tokens(texts))
        return reading_loss(network, answers, tokens, found, sizes, schedule)

    training.run(TEXT, prepare, text=network, answers=answers)
    return network


def _autoencoder(training: _Training, drawn: Mapping[Style, Drawn]) -> Any:
    """One for both models, so that their latents can be compared.

    Latents of A's pictures get a variance of one; those of B's have a little more.
    """
    network = _new(networks.vae, WINDOWS)
    for stage, window in _VIEWS.items():

        def prepare(schedule: Schedule, window: int = window) -> Loss:
            return autoencoder_loss(network, _both(drawn), schedule, window=window)

        training.run(stage, prepare, vae=network)
    training.autoencoder = digest(network)
    means, _ = encode(network, next(iter(drawn.values())).pictures[:_MEASURED])
    scale_latents(network, float(means.double().std()))
    return network


def _unets(training: _Training, vae: Any, text: Any, drawn: Mapping[Style, Drawn]) -> dict[str, Any]:
    """A's, from random weights, and B's, from A's; by the names of their files."""
    stages: tuple[tuple[str, Style, str], ...] = (
        (BASE, "shaded", BASE_NAME), (FINE_TUNE, "flat", FINE_TUNE_NAME),
    )  # fmt: skip
    unets: dict[str, Any] = {}
    before, after = None, training.autoencoder + digest(text)
    for stage, style, file in stages:
        unet = _new(networks.unet, BASE)
        if before is not None:
            unet.load_state_dict(before.state_dict())
            after = training.autoencoder + digest(before)

        def prepare(schedule: Schedule, unet: Any = unet, style: Style = style) -> Loss:
            latents = training.latents(vae, style, drawn[style])
            return denoiser_loss(unet, text, latents, drawn[style].tokens, schedule)

        training.run(stage, prepare, after=after, unet=unet)
        unets[file] = before = unet
    return unets


def _better_decoder(training: _Training, vae: Any, drawn: Mapping[Style, Drawn]) -> None:
    """Train the decoder on, the latents as they are."""

    def prepare(schedule: Schedule) -> Loss:
        found = [training.latents(vae, style, seen) for style, seen in drawn.items()]
        means, deviations = (_alike(list(part)) for part in zip(*found, strict=True))
        return decoder_loss(vae, _both(drawn), (means, deviations), schedule)

    training.run(DECODER, prepare, after=training.autoencoder, post=vae.post_quant_conv, decoder=vae.decoder)


def _both(drawn: Mapping[Style, Drawn]) -> Tensor:
    """Pictures of both styles, as many of each."""
    return _alike([seen.pictures for seen in drawn.values()])


def _alike(styles: list[Tensor]) -> Tensor:
    """As many rows of each, one after the other."""
    few = min(map(len, styles))
    return torch.cat([rows[:few] for rows in styles])


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} threads are none; give 1 or more")
    return number


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a script's own progress


if __name__ == "__main__":
    main()
