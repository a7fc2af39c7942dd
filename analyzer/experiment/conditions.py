"""Under which conditions pictures are painted: what was asked for, and what each model has by default.

Owns how seeds and sizes are written. Knows no pipeline and no files; of torch only its devices
and its threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from analyzer.devices import resolve_device
from analyzer.errors import AnalyzerError, DeviceError
from analyzer.experiment.records import Conditions

Prompts: TypeAlias = tuple[str, str]  # what is wished for, and what is not

# Of the experiment that this project comes from.
ARTICLE: Prompts = (
    "masterpiece, best quality, beautiful anime girl, school uniform, strong rim light, intense shadows, "
    "highly detailed, cinematic lighting, taken by Canon EOS 5D Simga Art Lens 50mm f1.8 ISO 100 Shutter "
    "Speed 1000",
    "lowres, bad anatomy, bad hands, error, missing fingers, cropped, worst quality, low quality, normal "
    "quality, jpeg artifacts, blurry",
)
# In the words that the captions of the pocket models' pictures have. Led away from pictures out of focus,
# models as small as these overdo it.
POCKET: Prompts = ("best quality, a woman, school uniform", "")

SEEDS = (1, 2, 3, 4)
DTYPES = ("auto", "fp32", "fp16", "bf16")
_LARGEST_SEED = 2**32 - 1  # as in the web interfaces, and exact in any program that reads the data
_MOST_SEEDS = 1000
_MOST_STEPS = 10_000
_MULTIPLE = 8  # of pixels a side: a latent stands for 8×8 of them
_LARGEST_SIDE = 8192


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user said. None and empty: nothing."""

    prompts: tuple[str, ...] = ()
    negative_prompt: str | None = None
    seeds: tuple[int, ...] = SEEDS
    steps: int = 40
    sampler: str | None = None
    cfg: float = 7.0
    size: tuple[int, int] | None = None  # width and height, pixels
    dtype: str = "auto"

    def check(self, *, paints: bool) -> None:
        """Refuse what no model can paint, or show to a probe; raises AnalyzerError."""
        if paints and len(self.prompts) > 1:
            raise AnalyzerError(
                f"--prompt was given {len(self.prompts)} times, but a grid of pictures has one prompt; "
                "give it once (a --probe may take several)"
            )
        if not 1 <= self.steps <= _MOST_STEPS:
            raise AnalyzerError(f"--steps {self.steps}: write a number from 1 to {_MOST_STEPS:,}, such as 40")
        if not math.isfinite(self.cfg) or self.cfg < 0:
            raise AnalyzerError(
                f"--cfg {self.cfg:g}: write a number of 0 or more, such as 7; 1 is no guidance"
            )
        if self.dtype not in DTYPES:
            raise AnalyzerError(f"--dtype {self.dtype}: choose one of {', '.join(DTYPES)}")


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds of "1,2,3,4", "1-8" or "1-3,7", in this order and each once; raises AnalyzerError."""
    found: dict[int, None] = {}
    for word in text.replace(" ", "").split(","):
        first, dash, last = word.partition("-")
        ends = (first, last) if dash else (first,)
        # Digits of other scripts are no ends of a range for anybody who reads this.
        if not all(end.isascii() and end.isdigit() and len(end) <= len(str(_LARGEST_SEED)) for end in ends):
            raise AnalyzerError(
                f"--seeds {_shown(text)}: write whole numbers from 0 to {_LARGEST_SEED}, as in 1,2,3,4 or 1-8"
            )
        low, high = int(first), int(last or first)
        if not low <= high <= _LARGEST_SEED:
            raise AnalyzerError(
                f"--seeds {_shown(text)}: {word} is no range from a smaller seed to a larger one, at "
                f"most {_LARGEST_SEED}; write for example 1-8"
            )
        if high - low >= _MOST_SEEDS:
            raise AnalyzerError(f"--seeds {_shown(text)}: more than {_MOST_SEEDS:,} seeds; write fewer")
        found |= dict.fromkeys(range(low, high + 1))
    if len(found) > _MOST_SEEDS:
        raise AnalyzerError(f"--seeds {_shown(text)}: more than {_MOST_SEEDS:,} seeds; write fewer")
    return tuple(found)


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of "512" or "512x768", in pixels; raises AnalyzerError."""
    sides = text.strip().lower().replace("×", "x").split("x")
    if not (1 <= len(sides) <= 2 and all(side.isascii() and side.isdigit() for side in sides)):
        raise AnalyzerError(f"--size {_shown(text)}: write pixels, as in 512 or 512x768 (width x height)")
    if any(len(side) > len(str(_LARGEST_SIDE)) or not 0 < int(side) <= _LARGEST_SIDE for side in sides):
        raise AnalyzerError(f"--size {_shown(text)}: a side has 8 to {_LARGEST_SIDE} pixels")
    if any(int(side) % _MULTIPLE for side in sides):
        raise AnalyzerError(f"--size {_shown(text)}: both sides must be multiples of {_MULTIPLE}")
    return int(sides[0]), int(sides[-1])


def device_named(name: str) -> str:
    """Where to paint: "cpu", "cuda:N" or "mps", of what a user wrote; DeviceError if it is not there."""
    if name != "mps":
        return resolve_device(name)
    import torch

    if not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' is not there: torch sees no Apple GPU; use --device cpu")
    return name


@contextmanager
def use_threads(number: int | None) -> Iterator[None]:
    """Let torch compute with so many threads while the block runs; with its own number if None."""
    if number is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def dtype_on(device: str, dtype: str) -> str:
    """The dtype of weights and activations: of "auto", fp16 on an NVIDIA GPU and fp32 elsewhere."""
    return dtype if dtype != "auto" else "fp16" if device.startswith("cuda") else "fp32"


def painted(
    asked: Asked, *, pocket: bool, own_size: tuple[int, int], own_sampler: str, device: str, alpha: float
) -> Conditions:
    """Of a pair that paints; the prompts that are not given are the article's, or the pocket models' own.

    `own_size` (width, height in pixels) and `own_sampler` are what suits the pipeline.
    """
    own_prompt, own_negative = POCKET if pocket else ARTICLE
    width, height = asked.size or own_size
    return Conditions(
        prompt=asked.prompts[0] if asked.prompts else own_prompt,
        negative_prompt=own_negative if asked.negative_prompt is None else asked.negative_prompt,
        seeds=asked.seeds,
        steps=asked.steps,
        sampler=asked.sampler or own_sampler,
        cfg=asked.cfg,
        width=width,
        height=height,
        device=device,
        dtype=dtype_on(device, asked.dtype),
        alpha=alpha,
    )


def probed(asked: Asked, *, seeded: bool, device: str, alpha: float) -> Conditions:
    """Of a pair that a probe looks at: what belongs to pictures says nothing; `seeded`: whether seeds do."""
    return Conditions(
        prompt="\n".join(asked.prompts),
        negative_prompt="",
        seeds=asked.seeds if seeded else asked.seeds[:1],
        steps=0,
        sampler="",
        cfg=0.0,
        width=0,
        height=0,
        device=device,
        dtype=dtype_on(device, asked.dtype),
        alpha=alpha,
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
