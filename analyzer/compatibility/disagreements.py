"""Whether two models can sensibly be averaged: what they say of themselves is held against each other.

One sentence for each disagreement: what, where it stands, what the output will say, and the way out. Decides
nothing: a merge goes on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from analyzer.checkpoints import Checkpoint
from analyzer.compatibility.declarations import (
    DENOISERS,
    EDM,
    EDM_VELOCITY,
    FLOW,
    MARKERS,
    NOISE,
    SAMPLE,
    VELOCITY,
    Declarations,
    Latents,
    Said,
    declarations,
)
from analyzer.records import Categorized

_SAME = 1e-6  # relative: 0.18215 is written with more or fewer digits


def warnings_between(
    a: Checkpoint,
    b: Checkpoint,
    *,
    found_a: Categorized,
    found_b: Categorized,
    touched: Collection[str] | None = None,
    added: Collection[str] = (),
    name: str = "B",
) -> tuple[str, ...]:
    """Sentences about what A and B say differently of themselves; none if they agree or one is silent.

    `found_a` and `found_b` are their labels, `touched` the parts of A into which values of B enter (None:
    any may), `added` the keys that the output gets from B alone, `name` what B is called (a further model
    is compared in the same way). No tensor but one small bias is read, and nothing that a file holds makes
    it fail.
    """
    said_a, said_b = declarations(a, found_a), declarations(b, found_b)
    denoisers = {network.part for network in found_a.networks if network.part in DENOISERS}
    blended = denoisers if touched is None else denoisers & set(touched)
    marks = sorted(set(added) & set(MARKERS))
    warnings = [*said_a.unreadable, *said_b.unreadable]
    if blended or marks:
        warnings += _predictions(said_a, said_b, name, blended, marks)
    vae = touched is None or "vae" in touched
    if vae or blended:
        warnings += _latents(said_a, said_b, name, vae=vae)
    if touched is None or touched:
        warnings += _settings(said_a, said_b, name)
    return tuple(dict.fromkeys(warnings))


def baking_warnings(
    a: Checkpoint, vae: Checkpoint, *, found_a: Categorized, found_vae: Categorized
) -> tuple[str, ...]:
    """The same for a VAE that replaces A's: whether A's U-Net works on its latents."""
    said_a, said_vae = declarations(a, found_a), declarations(vae, found_vae)
    warnings = [*said_a.unreadable, *said_vae.unreadable]
    one, two = said_a.latents, said_vae.latents
    if one and two and not _same(one, two):
        warnings.append(
            f"--vae scales latents by {_scale(two)}, and A's networks work on latents scaled by "
            f"{_scale(one)}: images come out wrong; the output is read with A's scale; bake the VAE of a "
            "model of A's kind"
        )
    return tuple(dict.fromkeys(warnings))


def _predictions(
    a: Declarations, b: Declarations, name: str, blended: Collection[str], marks: list[str]
) -> Iterator[str]:
    one, two = a.prediction, b.prediction
    options = " and ".join(f"--set '{part}=0'" for part in sorted(blended))
    keep = f"merge models of one kind, or keep A's {' and '.join(sorted(blended))} with {options}"
    way_out = keep if blended else "leave out --only-in-b add"
    if one and two and one.value != two.value:
        yield (
            f"A predicts {_NAMES[one.value]} ({one.source}), {name} {_NAMES[two.value]} ({two.source}), and "
            f"a network between them predicts neither; {_output_says(one, marks)}; {way_out}"
        )
    elif a.zero_snr is not None and b.zero_snr is not None and a.zero_snr != b.zero_snr:
        with_it, without = ("A", name) if a.zero_snr else (name, "A")
        yield (
            f"{with_it} was trained to zero terminal SNR and {without} was not: their networks expect "
            f"different noise at the first steps; {_snr_said(marks)}; {way_out}"
        )


def _snr_said(marks: list[str]) -> str:
    return "the output gets B's mark ztsnr" if "ztsnr" in marks else "the output says of it what A does"


def _output_says(one: Said, marks: list[str]) -> str:
    if marks:
        return f"the output gets B's marks ({', '.join(marks)}), and loaders will go by them"
    if one.source in ("its key v_pred", "its keys edm_mean and edm_std", "its key edm_vpred.sigma_max"):
        return f"the output is marked as A is, by {one.source.removeprefix('its ')}"
    if one.source.startswith("the spread of"):
        return "ComfyUI goes by that bias in the output, too"
    return f"the output says what A does, so that loaders take it to predict {_NAMES[one.value]}"


def _latents(a: Declarations, b: Declarations, name: str, *, vae: bool) -> Iterator[str]:
    way_out = "keep A's VAE with --set 'vae=0', or bake another with --vae FILE"
    if a.channels is not None and b.channels is not None and a.channels != b.channels:
        if vae:
            yield (
                f"the latents of A's VAE have {a.channels} channels and those of {name}'s {b.channels}: they "
                f"are trained apart, and what has one shape in both does not belong together; {way_out}"
            )
    elif a.latents and b.latents and not _same(a.latents, b.latents):
        yield (
            f"A's VAE scales latents by {_scale(a.latents)}, {name}'s by {_scale(b.latents)}: a merge of the "
            "two decodes neither as it should; the output is read with A's scale; "
            + (way_out if vae else "merge models of one scale")
        )


def _same(one: Latents, two: Latents) -> bool:
    return math.isclose(one.scale, two.scale, rel_tol=_SAME) and math.isclose(
        one.shift, two.shift, rel_tol=_SAME, abs_tol=_SAME
    )


def _scale(latents: Latents) -> str:
    shift = f" after a shift of {latents.shift:g}" if latents.shift else ""
    return f"{latents.scale:g}{shift} ({latents.source})"


def _settings(a: Declarations, b: Declarations, name: str) -> Iterator[str]:
    different = [
        f"{setting} is {value} in A and {b.settings[setting]} in {name}"
        for setting, value in a.settings.items()
        if setting in b.settings and b.settings[setting] != value
    ]
    if different:
        yield (
            f"config.json: {', '.join(different)}, so that equal weights mean different things; the "
            "output keeps A's config.json; merge models of one configuration"
        )


_NAMES = {
    NOISE: "noise (epsilon)",
    VELOCITY: "velocity (v-prediction)",
    EDM: "as EDM does",
    EDM_VELOCITY: "velocity on EDM's scale",
    FLOW: "flow",
    SAMPLE: "the image itself (sample)",
}
