"""The language of `--where` and `--fail-on`: comparisons over statistics, such as `cosine < 0.99`.

Owns the grammar and what undefined means in it. Refuses every name that it was not given; a text is
parsed into a small program for a stack and is never evaluated as Python.

    condition   comparisons joined by `and`, `or`, `not` and parentheses
    comparison  < <= > >= == != between numbers, chained as in Python: 0.5 < cosine <= 0.9
    number      a statistic, a literal, + - * / **, abs log log10 sqrt min max

Precedence is Python's. A statistic without a value, a division by zero, the logarithm of a negative
number or an overflow is undefined; what is computed from it is undefined too, and any comparison with
it is false. Hence `not cosine < 0.9` holds where `cosine` is undefined.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Literal, NoReturn, TypeAlias

from analyzer.errors import SelectorError

MAX_LENGTH = 2_000  # characters of one expression
MAX_DEPTH = 50  # parentheses, signs and powers inside each other; Python's own stack ends near 1000 calls

Value: TypeAlias = float | str | None  # what a mapping of statistics may hold; text is undefined here


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed comparison, ready to be asked about one key after the other."""

    text: str
    names: frozenset[str]  # the statistics that it uses
    _program: _Program = field(compare=False, repr=False)

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether the condition is true of these statistics; a name that is missing is undefined."""
        return _run(self._program, values) is True


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed number over statistics."""

    text: str
    names: frozenset[str]  # the statistics that it uses
    _program: _Program = field(compare=False, repr=False)

    def value(self, values: Mapping[str, Value]) -> float | None:
        """The number that these statistics give; None where it is undefined."""
        result = _run(self._program, values)
        return None if result is None else float(result)


def parse_expression(text: str, *, names: Collection[str]) -> Condition:
    """Parse a condition over the statistics `names`; SelectorError says what is wrong and where."""
    parser = _Parser(text, names)
    if parser.parse() == "number":
        raise SelectorError(
            f"the expression {_shorten(text)!r} is a number, not a condition: compare it, "
            f"as in 'relative_change > 0.03'"
        )
    return Condition(text, frozenset(parser.used), tuple(parser.program))


def parse_formula(text: str, *, names: Collection[str]) -> Formula:
    """Parse a number over the statistics `names`; SelectorError says what is wrong and where."""
    parser = _Parser(text, names)
    if parser.parse() == "condition":
        raise SelectorError(
            f"the expression {_shorten(text)!r} is a condition, not a number: leave out its comparison"
        )
    return Formula(text, frozenset(parser.used), tuple(parser.program))


@dataclass(frozen=True, slots=True)
class _Operation:
    """One step that takes `arity` values off the stack and leaves one."""

    function: Callable[..., float | bool]
    arity: int
    undefined: Literal[False] | None = None  # the outcome of an undefined argument: False of a comparison

    def apply(self, arguments: list[float | bool | None]) -> float | bool | None:
        if None in arguments:
            return self.undefined
        try:
            result = self.function(*arguments)
        except (ArithmeticError, ValueError):  # division by zero, overflow; logarithm or root of a negative
            return None
        return result if math.isfinite(result) else None


_Type: TypeAlias = Literal["number", "condition"]
_Program: TypeAlias = tuple[float | str | _Operation, ...]  # a literal, a statistic's name, an operation


def _run(program: _Program, values: Mapping[str, Value]) -> float | bool | None:
    """Run a program over one key's statistics. It cannot recurse, however long the text was."""
    stack: list[float | bool | None] = []
    for step in program:
        if isinstance(step, _Operation):
            arguments = stack[-step.arity :]
            del stack[-step.arity :]
            stack.append(step.apply(arguments))
        elif isinstance(step, str):
            stack.append(_number(values.get(step)))
        else:
            stack.append(step)
    (result,) = stack
    return result


def _number(value: Value) -> float | None:
    """A statistic as a finite float; None for whatever is not one."""
    if value is None or isinstance(value, str):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond fp64
        return None
    return number if math.isfinite(number) else None


_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
# math.pow stays with floats: no complex roots, no integers of a million digits
_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": math.pow,
}
_LOGIC: Mapping[str, Callable[[bool, bool], bool]] = {"or": operator.or_, "and": operator.and_}
_FUNCTIONS: Mapping[str, tuple[Callable[..., float], bool]] = {  # name -> function, takes two or more
    "abs": (abs, False),
    "log": (math.log, False),
    "log10": (math.log10, False),
    "sqrt": (math.sqrt, False),
    "min": (min, True),
    "max": (max, True),
}
_COMPARISON = 4
_SIGN = 7
_PRECEDENCE: Mapping[str, int] = {
    "or": 1,
    "and": 2,
    **dict.fromkeys(_COMPARISONS, _COMPARISON),
    "+": 5,
    "-": 5,
    "*": 6,
    "/": 6,
    "**": 8,
}
_NOT = 3
_INSTEAD: Mapping[str, str] = {
    "=": "==",
    "&": "and",
    "|": "or",
    "!": "not",
    "^": "**",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "−": "-",
    "×": "*",
}
_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<symbol>\*\*|[<>=!]=|[-+*/()<>,])"
)


@dataclass(frozen=True, slots=True)
class _Token:
    """One word of the text. `kind` is number, name, symbol (operators, `and`, `or`, `not`) or end."""

    kind: str
    text: str
    column: int  # from 1


class _Parser:
    """Precedence climbing over the tokens of one text; writes the program in postfix order."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.text = text
        self.names = names
        self.used: set[str] = set()
        self.program: list[float | str | _Operation] = []
        self._tokens = _tokenize(text)
        self._position = 0
        self._depth = 0

    def parse(self) -> _Type:
        """Read the whole text; the type of its value."""
        result = self._expression(floor=1)
        if self._next.kind != "end":
            self._unexpected("an operator")
        return result

    @property
    def _next(self) -> _Token:
        return self._tokens[self._position]

    def _take(self) -> _Token:
        token = self._next
        self._position += 1
        return token

    def _expression(self, *, floor: int) -> _Type:
        """Read an operand and all operators after it that bind at least as tightly as `floor`."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("the nesting is too deep", self._next, f"{MAX_DEPTH} levels are the limit")
        left = self._operand()
        while self._next.kind == "symbol" and _PRECEDENCE.get(self._next.text, 0) >= floor:
            left = self._comparison(left) if self._next.text in _COMPARISONS else self._binary(left)
        self._depth -= 1
        return left

    def _binary(self, left: _Type) -> _Type:
        sign = self._take()
        if sign.text in _LOGIC:
            right = self._expression(floor=_PRECEDENCE[sign.text] + 1)
            self._require("condition", sign, left, right)
            self.program.append(_Operation(_LOGIC[sign.text], 2))
            return "condition"
        # a power binds to its right, and less tightly than a sign there: 2 ** -x ** 2 is 2 ** -(x ** 2)
        right = self._expression(floor=_SIGN if sign.text == "**" else _PRECEDENCE[sign.text] + 1)
        self._require("number", sign, left, right)
        self.program.append(_Operation(_ARITHMETIC[sign.text], 2))
        return "number"

    def _comparison(self, left: _Type) -> _Type:
        signs = []
        while self._next.text in _COMPARISONS:
            sign = self._take()
            right = self._expression(floor=_COMPARISON + 1)
            self._require("number", sign, left, right)
            signs.append(_COMPARISONS[sign.text])
        self.program.append(_Operation(partial(_chain, tuple(signs)), len(signs) + 1, undefined=False))
        return "condition"

    def _operand(self) -> _Type:
        token = self._take()
        result: _Type = "number"
        if token.kind == "number":
            self._literal(token)
        elif token.kind == "name" and self._next.text == "(":
            self._call(token)
        elif token.kind == "name":
            self._statistic(token)
        elif token.text == "(":
            result = self._expression(floor=1)
            self._close()
        elif token.text == "not":
            self._require("condition", token, self._expression(floor=_NOT))
            self.program.append(_Operation(operator.not_, 1))
            result = "condition"
        elif token.text in ("-", "+"):
            self._require("number", token, self._expression(floor=_SIGN))
            self.program.append(_Operation(operator.neg if token.text == "-" else operator.pos, 1))
        else:
            self._position -= 1
            self._unexpected("a statistic, a number or '('")
        return result

    def _literal(self, token: _Token) -> None:
        value = float(token.text)
        if not math.isfinite(value):
            self._fail(f"the number {_shorten(token.text)} is too large", token, "fp64 ends near 1.8e308")
        self.program.append(value)

    def _statistic(self, token: _Token) -> None:
        if token.text not in self.names:
            self._fail(f"unknown statistic {_shorten(token.text)!r}", token, _nearest(token.text, self.names))
        self.used.add(token.text)
        self.program.append(token.text)

    def _call(self, token: _Token) -> None:
        if token.text not in _FUNCTIONS:
            self._fail(f"unknown function {_shorten(token.text)!r}", token, _nearest(token.text, _FUNCTIONS))
        function, variadic = _FUNCTIONS[token.text]
        count = 0
        while self._next.text == ("," if count else "("):
            self._take()
            self._require("number", token, self._expression(floor=1))
            count += 1
        self._close()
        if (count < 2) if variadic else (count != 1):
            wanted = "two numbers or more" if variadic else "one number"
            self._fail(f"{token.text!r} is given {count} arguments", token, f"it takes {wanted}")
        self.program.append(_Operation(function, count))

    def _close(self) -> None:
        if self._next.text != ")":
            self._unexpected("an operator or ')'")
        self._take()

    def _require(self, wanted: _Type, sign: _Token, *given: _Type) -> None:
        if any(each != wanted for each in given):
            wants, got = (
                ("numbers", "a condition")
                if wanted == "number"
                else ("conditions such as 'cosine < 0.9'", "a number")
            )
            self._fail(f"{sign.text!r} is given {got}", sign, f"it takes {wants}")

    def _unexpected(self, wanted: str) -> NoReturn:
        token = self._next
        found = "the end" if token.kind == "end" else repr(_shorten(token.text))
        self._fail(f"expected {wanted}, found {found}", token)

    def _fail(self, what: str, token: _Token, way_out: str = "") -> NoReturn:
        raise _error(what, self.text, token.column, way_out)


def _tokenize(text: str) -> list[_Token]:
    """The words of a text, and one of kind `end` behind them."""
    if len(text) > MAX_LENGTH:
        raise SelectorError(
            f"the expression {_shorten(text)!r} has {len(text)} characters; {MAX_LENGTH} are the limit"
        )
    tokens = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            wrong = text[position]
            way_out = (
                f"write {_INSTEAD[wrong]!r}"
                if wrong in _INSTEAD
                else f"the operators are {' '.join(_PRECEDENCE)} not"
            )
            raise _error(f"unexpected {wrong!r}", text, position + 1, way_out)
        word = match.group()
        kind = "symbol" if word in _LOGIC or word == "not" else str(match.lastgroup)
        tokens.append(_Token(kind, word, position + 1))
        position = match.end()
    tokens.append(_Token("end", "", len(text) + 1))
    return tokens


def _chain(signs: tuple[Callable[[float, float], bool], ...], *operands: float) -> bool:
    """Whether every neighbouring pair compares as its sign says."""
    return all(
        sign(left, right) for sign, left, right in zip(signs, operands[:-1], operands[1:], strict=True)
    )


def _nearest(name: str, known: Collection[str]) -> str:
    """The way out of an unknown name."""
    near = get_close_matches(name.lower(), sorted(known), n=3)
    return f"nearest are {', '.join(near)}" if near else f"there are {', '.join(sorted(known))}"


def _error(what: str, text: str, column: int, way_out: str) -> SelectorError:
    where = f"{what} at column {column} of the expression {_shorten(text)!r}"
    return SelectorError(f"{where}: {way_out}" if way_out else where)


def _shorten(text: str) -> str:
    """A text short enough to stand in a message."""
    return text if len(text) <= 120 else f"{text[:119]}…"
