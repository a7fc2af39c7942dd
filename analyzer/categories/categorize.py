"""Label every key of a model on the four axes: part, block, component, kind.

Knows names, dtypes and numbers of axes; refuses to look at sizes and values: a narrow SD 1.5 is an
SD 1.5. A model is cut into its networks (`networks.py`), and each is held against the architectures
(`analyzer/architectures/`, one TOML each; `rulefiles.py` describes the format). Networks and keys that
no file knows get what their names tell (`generic.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from analyzer.categories import averages, generic
from analyzer.categories.library import Candidate, RuleBook, shipped
from analyzer.categories.names import BASE, MARKER, SCHEDULE, VAE, Position, judge, last_words, special
from analyzer.categories.networks import DENOISER, MAIN, OTHER, Region, dissect, unwrap, variants
from analyzer.categories.rules import words_of
from analyzer.layouts import original
from analyzer.records import Categorized, Labels, Network, TensorInfo

GENERIC = "generic"
_Numbered = tuple[list[tuple[int, str]], str]
_BLOCK_ROLES = (DENOISER, MAIN, "prior", "decoder", "transformer_2", "unet_2")


def categorize(infos: Iterable[TensorInfo], *, book: RuleBook | None = None) -> Categorized:
    """The labels of every key, and the networks that the model consists of."""
    infos = tuple(infos)
    book = book or shipped()
    names, copies = _live_names(infos, book)
    axes = {names[info.key]: len(info.shape) for info in reversed(infos)}
    folders = {info.key: averages.live_folder(info.part) for info in infos if info.part}
    regions = dissect(names, folders)
    seats = [_seat(region, axes, names, book) for region in regions]
    placed = {
        key: (seat, inside)
        for seat, region in zip(seats, regions, strict=True)
        for key, inside in region.names.items()
    }
    main = _main(seats)
    labels = cache(Labels)  # few differ: equal ones are one object
    known: dict[
        tuple[object, ...], tuple[str | None, str, bool]
    ] = {}  # what `_kind` says, by all it looks at
    found = {}
    for info in infos:
        seat, inside = placed[info.key]
        match = _INNER_NUMBER.search(inside)
        ends = (inside[: match.start()], inside[match.end() :]) if match else (inside, "")
        sort = (*ends, info.dtype, len(info.shape), 0 in info.shape)
        if (kind := known.get(sort)) is None:
            kind = known[sort] = _kind(info, inside)
        copy = info.key in copies
        found[info.key] = labels(*_axes(kind, seat, inside, copy=copy, main=main))
    blocks = main.blocks({value.block for value in found.values()}) if main else ()
    networks = tuple(
        Network(
            seat.part,
            seat.architecture,
            seat.title,
            {key: name for key, name in region.names.items() if key not in copies},
            {key: name for key, name in region.names.items() if key in copies},
            seat.known,
        )
        for seat, region in zip(seats, regions, strict=True)
    )
    return Categorized(
        main.architecture if main else GENERIC,
        main.title if main else generic.TITLE,
        blocks,
        found,
        networks,
    )


@dataclass(frozen=True, slots=True)
class _Seat:
    """One network, and where its names stand."""

    role: str
    part: str
    architecture: str
    title: str
    locate: Callable[[str], Position]
    blocks: Callable[[set[str]], tuple[str, ...]]  # of the blocks found, those of the network in order
    known: int  # how many of its names the rules of an architecture know
    has_blocks: bool


def _live_names(infos: Sequence[TensorInfo], book: RuleBook) -> tuple[dict[str, str], set[str]]:
    """The bare names of all keys, of averages those of what they copy; and which keys are averages."""
    bare = unwrap(info.key for info in infos)
    copies = {info.key for info in infos if averages.is_average(bare[info.key], info.part)}
    dotted = [bare[key] for key in copies if averages.is_average(bare[key])]
    dotted = [name for name in dotted if name not in averages.MARKERS]
    if dotted:
        live = [name for key, name in bare.items() if key not in copies]
        restore = _restorer(dotted, book)
        found = averages.live_names(dotted, live, restore)
        bare = {key: found.get(name, name) if key in copies else name for key, name in bare.items()}
    folders = {info.key: info.part for info in infos if info.key in copies and info.part}
    for key, folder in folders.items():  # unet_ema.x copies unet.x
        bare[key] = averages.live_folder(folder) + bare[key].removeprefix(folder)
    return bare, copies


def _restorer(dotted: Sequence[str], book: RuleBook) -> Callable[[str], str | None]:
    """What puts the dots back into the names of averages: the rules of the U-Net that they fit best."""
    unets = [c.rules() for c in book.candidates if c.heading.part == "unet"]
    sample = sorted(dotted)[:: max(len(dotted) // 50, 1)]
    names = [name[name.index(".") + 1 :].removeprefix("diffusion_model") for name in sample]
    if not unets or not any("." not in name for name in names):
        return lambda _name: None
    counted = [(sum(rules.restore_dots(n) is not None for n in names), rules.name) for rules in unets]
    best = max(unets, key=lambda rules: next(count for count, name in counted if name == rules.name))
    return best.restore_dots


def _seat(region: Region, axes: Mapping[str, int], names: Mapping[str, str], book: RuleBook) -> _Seat:
    """The architecture of one network; what its names tell where there is none."""
    tensors = {inside: axes[names[key]] for key, inside in region.names.items()}
    sample = _representatives(tensors)
    for length in variants(tensors):
        cut = [(name[length:], count) for name, count in sample]
        if chosen := _choose(cut, region.role, book):
            return _ruled(region, chosen, {name: name[length:] for name in tensors})
    for renamed in _original_names(tensors):
        renamed_sample = _representatives({new: tensors[old] for old, new in renamed.items()})
        if chosen := _choose(renamed_sample, region.role, book):
            return _ruled(region, chosen, renamed)
    layout = generic.survey(tensors)
    part = _part_of(region.role, layout.part)
    return _Seat(
        region.role,
        part,
        GENERIC,
        generic.TITLE,
        lambda name: generic.position(name, layout),
        lambda _found: layout.blocks,
        known=0,
        has_blocks=bool(layout.blocks),
    )


def _original_names(tensors: Mapping[str, int]) -> Iterable[dict[str, str]]:
    """The names of a network in LDM's layout, by its own; also where a word stands before all of these."""
    for length in variants(tensors):
        own = {name: name[length:] for name in tensors}
        if renamed := original(own.values()):
            yield {name: renamed.get(inside, inside) for name, inside in own.items()}


def _ruled(region: Region, chosen: Candidate, renamed: Mapping[str, str]) -> _Seat:
    rules, unknown = chosen.rules(), generic.Layout()
    found = {name: rules.position(renamed[name]) for name in dict.fromkeys(region.names.values())}

    def locate(name: str) -> Position:
        return found[name] or generic.position(renamed[name], unknown)

    return _Seat(
        region.role,
        _part_of(region.role, chosen.heading.part),
        chosen.heading.name,
        chosen.heading.title,
        locate,
        chosen.heading.in_order,
        known=sum(found[name] is not None for name in region.names.values()),
        has_blocks=bool(chosen.heading.blocks),
    )


def _choose(sample: Sequence[tuple[str, int]], role: str, book: RuleBook) -> Candidate | None:
    """The architecture that fits: of several the user's, then the one whose rules know most of the names."""
    words = words_of(sample)
    fitting = [c for c in book.candidates if c.fit(sample, words)]
    fitting = [c for c in fitting if c.source] or fitting
    if not fitting and book.demanded and not book.demanded.heading.required and role in (DENOISER, MAIN):
        return book.demanded
    if len(fitting) < 2:
        return fitting[0] if fitting else None

    def merit(candidate: Candidate) -> tuple[int, int, str]:
        rules = candidate.rules()
        known = sum(rules.rule_of(name) is not None for name, _ in sample)
        return known, len(candidate.heading.required), candidate.heading.name

    return max(fitting, key=merit)


def _representatives(tensors: Mapping[str, int]) -> list[tuple[str, int]]:
    """Of names that differ in their numbers alone the lowest and the highest: few, whatever the depth."""
    ends: dict[tuple[str, int], tuple[_Numbered, _Numbered]] = {}
    for name, axes in tensors.items():
        words = _NUMBERS.split(name)
        # Compared by length first, as numbers are; a name may hold one of thousands of digits.
        mine = ([(len(digits), digits) for digits in words[1::2]], name)
        sort = ("#".join(words[::2]), axes)
        low, high = ends.get(sort, (mine, mine))
        ends[sort] = (min(low, mine), max(high, mine))
    return [(name, axes) for (_, axes), pair in ends.items() for name in dict.fromkeys(n for _, n in pair)]


def _part_of(role: str, own: str) -> str:
    """The part of a network: what its prefix or folder says, else what its architecture is."""
    if role == DENOISER:
        return own if own in ("unet", "transformer") else "unet"
    return own if role == MAIN else role


def _main(seats: Sequence[_Seat]) -> _Seat | None:
    """The network whose blocks a merge addresses.

    The first of the leading roles, unless that is a few tensors without a word before them (the
    projection behind an image encoder): then the first network that has blocks.
    """
    leading = [seat for seat in seats if seat.role != OTHER] or list(seats)
    if leading and leading[0].role == MAIN and not leading[0].has_blocks:
        return next((seat for seat in leading if seat.has_blocks), leading[0])
    return leading[0] if leading else None


def _kind(info: TensorInfo, name: str) -> tuple[str | None, str, bool]:
    """The word for what is no weight, the kind, and whether it counts: the same whatever a layer's number."""
    word = MARKER if name in averages.MARKERS else special(name, empty=0 in info.shape)
    return word, *judge(last_words(name), info.dtype, len(info.shape))


def _axes(
    judged: tuple[str | None, str, bool], seat: _Seat, name: str, *, copy: bool, main: _Seat | None
) -> tuple[str, str, str, str, str, bool]:
    """The fields of `Labels` for one tensor; `name` is its name in the network, or that of what it copies."""
    word, kind, counted = judged
    if word:
        part = "other" if word == SCHEDULE else seat.part if seat.role not in (MAIN, OTHER) else "other"
        return "ema" if copy else part, VAE if part == "vae" else BASE, word, "other", word, False
    part, block, component, group = seat.locate(name)
    if seat.role not in (MAIN, OTHER):
        part = seat.part
    if seat.role == OTHER:
        part = part if part != "transformer" else OTHER
    if part == "vae":
        block = VAE
    elif seat is not main and seat.role not in _BLOCK_ROLES:
        block = BASE
    return "ema" if copy else part, block, component, kind, group, counted and not copy


_NUMBERS = re.compile(r"([0-9]+)")
_INNER_NUMBER = re.compile(r"(?<=\.)[0-9]+(?=\.)")  # a whole segment, neither the first nor the last
