"""Rule files: one TOML for each architecture, read and checked.

A file describes one network, by the names that its keys have inside it: what stands before them in a
checkpoint (`model.diffusion_model.`, `first_stage_model.`, the folder of a diffusers pipeline) is taken
away by `analyzer/categories/networks.py`. It holds, with key templates as
`analyzer/categories/templates.py` describes them:

    name = "tiny"                           # short, for files and options
    title = "Tiny Diffusion"                # for people
    part = "unet"                           # of a network on its own: unet, transformer, vae, text_encoder …
    blocks = ["IN00..IN11", "M00", "L.."]   # what block weights address, in network order; "L.." is open:
                                            # all of L00, L01 … that a model has (optional, else none)
    [[require]]                             # a model is of this architecture if every `require` finds
    keys = ["output_blocks.{n:9..11}.**"]   # one of its tensors by one of these keys, and no `refuse`
    axes = 4                                # does; `axes` (optional) is the tensor's number of axes
    [[refuse]]
    keys = ["label_emb.**"]

    [places.input]                          # a region of the network, so that rules need not repeat it;
    at = ["model.input_blocks.{n:0..11}", "input_blocks.{n:0..11}"]
    part = "unet"                           # optional, else the file's
    block = "IN{n:02}"                      # optional, else BASE

    [places.layer]
    at = ["layers.{n:#}"]                   # any number will do for an open stem
    block = "L{n:02}"

    [[rule]]                                # the first rule that matches a key wins
    places = ["input", "layer"]             # its `key` continues every `at` of these
    key = "{attn:attn1|attn2}.to_out.0.*"
    component = "transformer/{attn}/to_out"
    group = 2                               # optional, else 1: segments at which rankings group
    block = "M00"                           # optional, else the place's

    [[example]]                             # replayed by the tests
    key = "input_blocks.4.attn2.to_out.0.bias"
    part = "unet"
    block = "M00"
    component = "transformer/attn2/to_out"
    group = "transformer/attn2"

`extends = ["llama"]` beside `name` takes over the places and rules of other files that ship with the
package, and of those that they extend, behind the file's own; a place of the same name is the file's
own. Name, title, part, blocks and the `require` and `refuse` rows stand before everything else, since of
most files no more is read.

Kinds, tables and markers are the same everywhere (`analyzer/categories/names.py`). What `{rest:**}` captures
loses its numbers and its `weight` or `bias` when a component names it. Refused, all problems of a
file at once: a rule that could give a block which `blocks` does not list (BASE and VAE apart), a
component that is empty, says nothing or would break selectors, and every unknown field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path

from analyzer.categories import templates
from analyzer.categories.names import BASE, VAE, Position, clean
from analyzer.categories.rules import (
    Evidence,
    Example,
    Heading,
    Pattern,
    Rule,
    Rules,
    build_index,
    evidence_of,
    index_size,
    pattern_of,
)
from analyzer.categories.templates import Segment, TemplateError
from analyzer.errors import AnalyzerError
from analyzer.fields import FieldError, Table, brief, collect, listed
from analyzer.toml_reading import parse_toml

Library = Callable[[str], str]  # the text of a file that ships with the package, by its name


def no_library(name: str) -> str:
    """The library of a file that must not extend others."""
    raise TemplateError(f"extends {name!r}, which is no architecture that ships with mergescope")


def read(file: Path | Traversable) -> str:
    """The text of a rule file."""
    try:
        if isinstance(file, Path) and file.exists() and not file.is_file():  # a pipe would be waited for
            raise AnalyzerError(f"{file}: is no regular file; give a TOML file")
        if isinstance(file, Path) and file.exists() and file.stat().st_size > MAX_BYTES:
            raise AnalyzerError(f"{file}: has more than {MAX_BYTES} bytes, so it is no file of rules")
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null byte in the name
        raise AnalyzerError(f"{file}: cannot read the rules ({error}); give a TOML file") from error


def load(file: Path | Traversable, *, library: Library = no_library) -> Rules:
    """The rules of a TOML file."""
    return parse(read(file), source=str(file), library=library)


def parse(text: str, *, source: str, library: Library = no_library) -> Rules:
    """The rules of a TOML text; `source` names it in messages."""
    document = _document(text, source)
    problems: list[str] = []
    heads = collect([document], _head, problems)
    required, refused = _conditions(document, problems)
    examples = collect(document.rows("example"), _example, problems)
    # Without a head every rule would seem to give wrong blocks.
    patterns = _all_patterns(document, heads[0], library, problems) if heads else ()
    if problems:
        raise AnalyzerError(f"{source}: {listed(problems)}")
    heading = _heading(heads[0], required, refused)
    return Rules(heading, patterns, build_index(patterns), tuple(examples))


def parse_heading(text: str, *, source: str) -> Heading:
    """What the first lines of a rule file say of it; the rest is not even looked at."""
    document = _document(_REST.split(text, maxsplit=1)[0], source)
    problems: list[str] = []
    heads = collect([document], lambda table: _head(table, partial=True), problems)
    required, refused = _conditions(document, problems)
    if problems:
        raise AnalyzerError(f"{source}: {listed(problems)}")
    return _heading(heads[0], required, refused)


def hints_of_heading(text: str) -> tuple[frozenset[str], ...]:
    """What a network must have to be of the architecture, told without reading the TOML.

    Of each key of the first `require` the segments that are spelled out: some tensor's name has all of
    one of these. The empty set where that cannot be told so.
    """
    found = _FIRST_REQUIRE.search(_REST.split(text, maxsplit=1)[0])
    keys = _QUOTED.findall(found[1]) if found else [""]
    return tuple(frozenset(word for word in key.split(".") if _PLAIN.fullmatch(word)) for key in keys)


def _document(text: str, source: str) -> Table:
    try:
        return Table("the file", "", parse_toml(text))
    except FieldError as error:
        raise AnalyzerError(f"{source}: the rules are not valid TOML: {error}") from error


def _conditions(document: Table, problems: list[str]) -> tuple[list[Evidence], list[Evidence]]:
    budget = _Budget()
    required = collect(document.rows("require"), lambda row: _evidence(row, budget), problems)
    return required, collect(document.rows("refuse"), lambda row: _evidence(row, budget), problems)


def _heading(head: _Head, required: Iterable[Evidence], refused: Iterable[Evidence]) -> Heading:
    return Heading(head.name, head.title, head.part, head.blocks, tuple(required), tuple(refused))


def _all_patterns(document: Table, head: _Head, library: Library, problems: list[str]) -> tuple[Pattern, ...]:
    """The patterns of a file, and behind them those of the files that it extends, and that these extend."""
    chain, budget = _chain(document, head, library, problems), _Budget()
    named = [
        dict(collect(link.table.tables("places"), lambda t: _place(t, head.part, budget), problems))
        for link in chain
    ]
    own, *inherited = named
    known = {name: place for places in reversed(inherited) for name, place in places.items()} | own
    blocks = frozenset({*head.blocks, BASE, VAE})
    patterns = _rules(document, known, blocks, problems)
    for link, places in zip(chain[1:], inherited, strict=True):
        for above in link.above:  # the file that is read comes last, and so has its way
            places = places | named[above]
        patterns += _rules(link.table, places, blocks, problems, owner=link.owner)
    if index_size(patterns) > MAX_INDEX:
        problems.append("the file: has too many places, and rules that begin with any word")
    return patterns


@dataclass(frozen=True, slots=True)
class _Link:
    """A file in the chain of those that extend each other."""

    table: Table
    owner: str  # its name; "" of the file that is read
    above: tuple[int, ...]  # where in the chain those stand that led to it, the nearest first


def _chain(document: Table, head: _Head, library: Library, problems: list[str]) -> list[_Link]:
    """The file and all that it extends, each once; those that it names itself come before theirs."""
    chain = [_Link(document, "", ())]
    seen: set[str] = set()
    for place, link in enumerate(chain):  # which grows
        more = head.extends if not place else tuple(link.table.fields.get("extends", ()))
        for name in more:
            if name in seen:
                continue
            seen.add(name)
            try:
                chain.append(_Link(_document(library(name), name), name, (place, *link.above)))
            except TemplateError as error:
                problems.append(f"the file: {brief(str(error))}")
    return chain


@dataclass(slots=True)
class _Budget:
    """How many words and numbers templates may still spell out: so much time and memory they take."""

    left: int = field(default_factory=lambda: MAX_SPELLED)

    def spend(self, segments: Iterable[Segment]) -> None:
        """Take off what one template has; TemplateError if that was too much."""
        self.left -= 1 + sum(len(segment.values or ()) for segment in segments)
        if self.left < 0:
            raise TemplateError(f"up to here there are more than {MAX_SPELLED} words and numbers")


@dataclass(frozen=True, slots=True)
class _Head:
    name: str
    title: str
    part: str
    blocks: tuple[str, ...]
    extends: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    at: tuple[str, ...]  # key templates; "" for the top of the file
    part: str
    block: str  # a template


def _head(table: Table, *, partial: bool = False) -> _Head:
    table.only(
        *("name", "title", "part", "blocks", "extends", "require", "refuse", "places", "rule", "example")
    )
    extends = table.texts("extends") if "extends" in table.fields else ()
    if len(set(extends)) < len(extends):
        raise TemplateError("extends names one file twice")
    if not partial and not extends and not table.rows("rule"):
        raise TemplateError("has no [[rule]]")
    part = _part(table, "transformer")
    blocks = _blocks(table.texts("blocks")) if "blocks" in table.fields else ()
    return _Head(table.text("name"), table.text("title"), part, blocks, extends)


def _part(table: Table, default: str) -> str:
    if not _PART.fullmatch(part := table.text("part", default)):
        raise TemplateError(f"part {part!r} must be a word of small letters such as unet")
    return part


def _blocks(entries: Iterable[str]) -> tuple[str, ...]:
    """The names of the blocks in order, with ranges such as IN00..IN11 spelled out."""
    names: list[str] = []
    for entry in entries:
        if len(names) > MAX_BLOCKS:
            break
        if not (match := _BLOCKS.fullmatch(entry)):
            raise TemplateError(
                f"blocks has {entry!r}: write M00, IN00..IN11, or L.. for as many as there are"
            )
        if not match["first"]:
            names.append(entry)
            continue
        stem, first, last = match["stem"], match["first"], match["last"] or match["first"]
        names += [f"{stem}{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    if len(names) > MAX_BLOCKS:
        raise TemplateError(f"blocks has more than {MAX_BLOCKS} names")
    if len(names) != len(set(names)):
        raise TemplateError("blocks names one block twice")
    return tuple(names)


def _place(table: Table, part: str, budget: _Budget) -> tuple[str, _Place]:
    table.only("at", "part", "block")
    for at in table.texts("at"):
        budget.spend(templates.parse(at))
    return table.name, _Place(table.texts("at"), _part(table, part), table.text("block", BASE))


def _rules(
    document: Table,
    places: Mapping[str, _Place],
    blocks: Collection[str],
    problems: list[str],
    *,
    owner: str = "",
) -> tuple[Pattern, ...]:
    """The patterns of all rules; `owner` is the file's name where another one extends it."""
    budget = _Budget()
    groups = collect(
        document.rows("rule"), lambda row: _patterns(row, places, blocks, owner, budget), problems
    )
    return tuple(pattern for group in groups for pattern in group)


def _patterns(
    row: Table, places: Mapping[str, _Place], blocks: Collection[str], owner: str, budget: _Budget
) -> list[Pattern]:
    """One rule at all its places."""
    row.only("places", "key", "component", "group", "block")
    component, group = row.text("component"), row.number("group")
    _check_component(component)
    group = 1 if group is None else group
    if not 1 <= group <= component.count("/") + 1:
        raise TemplateError(f"group = {group} is not within 1 … the segments of {component!r}")
    patterns = []
    for name in row.texts("places"):
        if not (place := places.get(name)):
            raise TemplateError(f"there is no place {name!r}, only {', '.join(sorted(places)) or 'none'}")
        rule = Rule(int(row.name), place.part, row.text("block", place.block), component, group, owner)
        for at in place.at:
            segments = templates.parse(f"{at}.{row.text('key')}" if at else row.text("key"))
            budget.spend(segments)
            _check_captures(rule, segments, blocks)
            patterns.append(pattern_of(rule, segments))
    return patterns


def _check_component(component: str) -> None:
    """Refuse what is not a path of clean words and placeholders."""
    for word in component.split("/"):
        bare = templates.fill(word, dict.fromkeys(templates.holes(word), "x"))
        if clean(bare) != bare:
            raise TemplateError(f"component {component!r} must not have a segment {word!r}")


def _check_captures(rule: Rule, segments: Iterable[Segment], blocks: Collection[str]) -> None:
    """Refuse names that the key does not capture, and blocks that the file does not list."""
    segments = tuple(segments)
    if missing := templates.holes(rule.component) - {segment.name for segment in segments}:
        raise TemplateError(f"the key captures no {', '.join(sorted(missing))} for {rule.component!r}")
    if (stem := _OPEN_BLOCK.fullmatch(rule.block)) and f"{stem[1]}.." in blocks:
        if not any(segment.name == stem[2] and segment.numeric for segment in segments):
            raise TemplateError(f"{rule.block!r} needs a number {{{stem[2]}:#}} in the key")
        return
    if stray := [name for name in templates.fillings(rule.block, segments) if name not in blocks]:
        raise TemplateError(f"{rule.block!r} can give {min(stray)}, which `blocks` does not list")


def _evidence(row: Table, budget: _Budget) -> Evidence:
    row.only("keys", "axes")
    keys = [templates.parse(key) for key in row.texts("keys")]
    for key in keys:
        budget.spend(key)
    return evidence_of(keys, row.number("axes"))


def _example(row: Table) -> Example:
    axes = ("part", "block", "component", "group")
    row.only("key", *axes)
    return Example(row.text("key"), Position(*(row.text(axis) for axis in axes)))


_PART = re.compile(r"[a-z][a-z0-9_]*")
_BLOCKS = re.compile(r"(?P<stem>[A-Z]+)(?:\.\.|(?P<first>[0-9]{1,4})(?:\.\.(?P=stem)(?P<last>[0-9]{1,4}))?)")
_OPEN_BLOCK = re.compile(r"([A-Z]+)\{([a-z][a-z_]*)(?::0[1-9])?\}")
_REST = re.compile(r"^\[(?:places|\[(?:rule|example))", re.MULTILINE)
_FIRST_REQUIRE = re.compile(r"^\[\[require\]\]\nkeys = \[([^]]*)\]$", re.MULTILINE)
_QUOTED = re.compile(r'"([^"]*)"')
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
MAX_BYTES = 1 << 18  # the largest file that ships has a thirtieth of it
MAX_BLOCKS = 10_000
MAX_SPELLED = 50_000  # words and numbers in all places, or all rules at theirs; 500 in what ships
MAX_INDEX = 5_000_000  # a model's keys are looked up by their length and first word
