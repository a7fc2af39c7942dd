"""Translation maps: one TOML for each network, read and checked.

A map tells what the tensors of a network are called canonically, that is in the layout of diffusers or
transformers, wherever another layout calls them otherwise. What stands in it:

    name = "flux"
    title = "Flux"                       # for people
    labels = false                       # optional: whether `original` gives its original names as labels

    [placeholders]                       # what {n} stands for in the templates of this file; the kinds are
    n = "#"                              # described in analyzer/layouts/templates.py
    param = "weight|bias"

    [[require]]                          # a network is of this kind if each `require` finds one of its names
    keys = ["double_blocks.{n}.img_attn.qkv.{param}"]      # by one of these templates,
    [[refuse]]                           # and no `refuse` does
    keys = ["double_stream_modulation_img.lin.weight"]

    [[rule]]                             # original = canonical: every line of `at`, a module, is continued
    [rule.at]                            # by every line of `names`; without `at` names stand alone
    "double_blocks.{n}.img_attn" = "transformer_blocks.{n}.attn"
    [rule.names]
    "proj.{param}" = "to_out.0.{param}"
    "qkv.{param}" = [                    # one tensor that holds the rows of several, in this order
        { word = "q", name = "to_q.{param}" },
        { word = "k", name = "to_k.{param}", rows = 1 },   # rows (optional, else 1): its share of them
        { word = "v", name = "to_v.{param}" },
    ]
    "table" = { name = "table.weight", transposed = true } # stored as the canonical matrix's transpose

    [[rule]]                             # of several rules for one name, the first that holds; `unless` names
    unless = "top.{n}.extra.weight"      # a tensor of the same network that makes this one not hold
    ...

    [[alias]]                            # the same, for names that are not the original ones: older
    ...                                  # spellings, and canonical tensors whose rows another layout
                                         # orders otherwise ("norm_out.linear.weight#scale")

The rules stand behind everything else, since of most files no more is read.

Refused, all problems of a file at once: unknown fields, placeholders that nothing explains or that only one
side of a rule has, names that cannot be told apart, and fused tensors whose parts have no word.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar

from analyzer.errors import AnalyzerError
from analyzer.fields import FieldError, Table, collect, listed
from analyzer.layouts import templates
from analyzer.layouts.facets import Facet
from analyzer.layouts.templates import Node, Placeholders, TemplateError
from analyzer.toml_reading import parse_toml

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rule:
    """What one name template is in the other layout; all texts are templates with open placeholders alone."""

    facets: tuple[Facet, ...]
    names: tuple[str, ...]  # the placeholders, in the order in which a match captures them
    unless: str = ""
    alias: bool = False  # not a name of the original layout

    def holds(self, captured: tuple[str, ...], known: Collection[str]) -> bool:
        """Whether the rule holds in a network that has these names."""
        return not self.unless or templates.fill(self.unless, self.names, captured) not in known


@dataclass(frozen=True, slots=True)
class Heading:
    """What tells whether a map holds: read of all of them, so it is kept short."""

    required: tuple[Node[bool], ...]
    refused: tuple[Node[bool], ...]


@dataclass(frozen=True, slots=True)
class Map:
    """The names of one kind of network in its layouts."""

    name: str
    title: str
    labels: bool
    heading: Heading
    forward: Node[Rule]  # from any layout to the canonical one
    backward: Node[Rule]  # from the canonical layout to the original one, for tensors that are whole in both


def load(file: Path | Traversable) -> Map:
    """The map of a TOML file."""
    return parse(read(file), source=str(file))


def read(file: Path | Traversable) -> str:
    """The text of a map's file."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AnalyzerError(f"{file}: cannot read the map ({error}); give a TOML file") from error


def parse(text: str, *, source: str) -> Map:
    """The map of a TOML text; `source` names it in messages."""
    document, problems = _document(text, source), list[str]()
    heads = collect([document], _head, problems)
    draft = _Draft(heads[0].placeholders if heads else {})
    heading = _heading(document, draft, problems)
    if heads:  # without placeholders every rule would seem to be wrong
        collect(document.rows("rule"), draft.add_rule, problems)
        collect(document.rows("alias"), draft.add_alias, problems)
    if problems:
        raise AnalyzerError(f"{source}: {listed(problems)}")
    head = heads[0]
    return Map(head.name, head.title, head.labels, heading, draft.forward, draft.backward)


def parse_heading(text: str, *, source: str) -> Heading:
    """What stands before the rules of a map; the rest is not even looked at."""
    document, problems = _document(_RULES.split(text, maxsplit=1)[0], source), list[str]()
    heads = collect([document], lambda table: _head(table, partial=True), problems)
    heading = _heading(document, _Draft(heads[0].placeholders if heads else {}), problems)
    if problems:
        raise AnalyzerError(f"{source}: {listed(problems)}")
    return heading


def _document(text: str, source: str) -> Table:
    try:
        return Table("the file", "", parse_toml(text))
    except FieldError as error:
        raise AnalyzerError(f"{source}: the map is not valid TOML: {error}") from error


def _heading(document: Table, draft: _Draft, problems: list[str]) -> Heading:
    required = collect(document.rows("require"), draft.evidence, problems)
    return Heading(tuple(required), tuple(collect(document.rows("refuse"), draft.evidence, problems)))


@dataclass(frozen=True, slots=True)
class _Head:
    name: str
    title: str
    labels: bool
    placeholders: Placeholders


def _head(table: Table, *, partial: bool = False) -> _Head:
    table.only("name", "title", "labels", "placeholders", "require", "refuse", "rule", "alias")
    for field_name in ("require",) if partial else ("require", "rule"):
        if not table.rows(field_name):
            raise TemplateError(f"has no [[{field_name}]]")
    specs = Table("placeholders", "", table.entries("placeholders"))
    placeholders = {name: templates.stands_for(specs.text(name)) for name in specs.fields}
    return _Head(table.text("name"), table.text("title"), table.flag("labels"), placeholders)


@dataclass(slots=True)
class _Draft:
    """The indices of a map while its rules are read."""

    placeholders: Placeholders
    forward: Node[Rule] = field(default_factory=Node)
    backward: Node[Rule] = field(default_factory=Node)
    sources: set[tuple[str, str]] = field(default_factory=set)  # what has a rule, and unless what

    def evidence(self, row: Table) -> Node[bool]:
        """The names that a `require` or `refuse` means."""
        row.only("keys")
        root: Node[bool] = Node()
        for key in row.texts("keys"):
            templates.check(key, self.placeholders)
            for (text,) in templates.variants([key], self.placeholders):
                templates.insert(root, text, self.placeholders, True)
        return root

    def add_rule(self, row: Table) -> None:
        """Add what a `rule` says, both ways."""
        self._add(row, alias=False)

    def add_alias(self, row: Table) -> None:
        """Add what an `alias` says, one way."""
        self._add(row, alias=True)

    def _add(self, row: Table, *, alias: bool) -> None:
        row.only("unless", "at", "names")
        unless = row.text("unless", "")
        modules = row.entries("at") if "at" in row.fields else {"": ""}
        for module, canonical in modules.items():
            if not isinstance(canonical, str):
                raise TemplateError(f"at.{module} must be a text, it is {canonical!r}")
            for name, target in row.entries("names").items():
                facets = tuple(_facets(Table(name, name, target), canonical))
                self._insert(_join(module, name), facets, unless, alias=alias)

    def _insert(self, source: str, facets: tuple[Facet, ...], unless: str, *, alias: bool) -> None:
        """Add one line, in every variant of it."""
        self._check(source, facets, unless)
        texts = [source, unless, *(facet.name for facet in facets)]
        for text, condition, *names in templates.variants(texts, self.placeholders):
            if (text, condition) in self.sources:
                raise TemplateError(f"{text!r} has a rule already")
            self.sources.add((text, condition))
            named = tuple(_named(facet, name) for facet, name in zip(facets, names, strict=True))
            self._put(self.forward, text, named, condition, alias=alias)
            if not alias and facets == (Facet(facets[0].name),):
                self._put(self.backward, names[0], (Facet(text),), condition, alias=alias)

    def _put(
        self, root: Node[Rule], text: str, facets: tuple[Facet, ...], unless: str, *, alias: bool
    ) -> None:
        captured = templates.holes(text)
        templates.insert(root, text, self.placeholders, Rule(facets, captured, unless, alias))

    def _check(self, source: str, facets: tuple[Facet, ...], unless: str) -> None:
        templates.check(source, self.placeholders)
        if unless:
            templates.check(unless, self.placeholders)
            if stray := set(templates.holes(unless)) - set(templates.holes(source)):
                raise TemplateError(f"unless has {', '.join(sorted(stray))}, which {source!r} has not")
        for facet in facets:
            bare, _, word = facet.name.partition("#")
            templates.check(bare, self.placeholders)
            if word != facet.word and "#" in facet.name:
                raise TemplateError(f"{facet.name!r} must end with #{facet.word}")
            if set(templates.holes(bare)) != set(templates.holes(source)):
                raise TemplateError(f"{source!r} and {facet.name!r} must have the same placeholders")


def _facets(target: Table, module: str) -> Iterator[Facet]:
    """What the right side of a line says."""
    if isinstance(target.fields, str):
        yield Facet(_join(module, target.fields))
    elif isinstance(target.fields, list):
        yield from _parts([Table(target.where, target.name, part) for part in target.fields], module)
    else:
        target.only("name", "transposed")
        yield Facet(_join(module, target.text("name")), transposed=target.flag("transposed"))


def _parts(parts: list[Table], module: str) -> Iterator[Facet]:
    """The parts of a fused tensor, which share its rows."""
    for part in parts:
        part.only("word", "name", "rows")
    words, names = [part.text("word") for part in parts], [part.text("name") for part in parts]
    if len(parts) < 2 or len(set(words)) < len(words) or len(set(names)) < len(names):
        raise TemplateError("a fused tensor must have two parts or more, with different words and names")
    shares = [part.share("rows") for part in parts]
    for number, (word, name) in enumerate(zip(words, names, strict=True)):
        first = sum(shares[:number])
        yield Facet(_join(module, name), word, first, first + shares[number], sum(shares))


def _named(facet: Facet, name: str) -> Facet:
    return Facet(name, facet.word, facet.first, facet.last, facet.of, facet.transposed)


def _join(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


_RULES = re.compile(r"^\[\[(?:rule|alias)\]\]", re.MULTILINE)
