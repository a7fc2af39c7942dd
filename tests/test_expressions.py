"""Conditions over statistics, against Python's own grammar with arithmetic that knows undefined."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import SelectorError
from analyzer.evaluation import evaluate
from analyzer.expressions import MAX_DEPTH, MAX_LENGTH, Value, parse_expression, parse_formula
from analyzer.measures import Sums
from analyzer.statistics import STATISTICS

NAMES = ("cosine", "relative_change", "norm_a", "min_change")
VALUES: Mapping[str, Value] = {"cosine": 0.5, "relative_change": -3.0, "norm_a": None, "min_change": 0.0}


def holds(text: str, values: Mapping[str, Value] = VALUES) -> bool:
    return parse_expression(text, names=NAMES).holds(values)


def value(text: str, values: Mapping[str, Value] = VALUES) -> float | None:
    return parse_formula(text, names=NAMES).value(values)


def message(text: str) -> str:
    with pytest.raises(SelectorError) as caught:
        parse_expression(text, names=NAMES)
    return str(caught.value)


# The oracle: Python reads the text, these numbers carry "undefined" through it.


@dataclass(frozen=True, eq=False)
class Lifted:
    """A float or undefined, which swallows arithmetic and makes every comparison false."""

    number: float | None

    def _compare(self, other: Lifted, function: Callable[[float, float], bool]) -> bool:
        return self.number is not None and other.number is not None and function(self.number, other.number)

    def __add__(self, other: Lifted) -> Lifted:
        return lift(operator.add, self, other)

    def __sub__(self, other: Lifted) -> Lifted:
        return lift(operator.sub, self, other)

    def __mul__(self, other: Lifted) -> Lifted:
        return lift(operator.mul, self, other)

    def __truediv__(self, other: Lifted) -> Lifted:
        return lift(operator.truediv, self, other)

    def __pow__(self, other: Lifted) -> Lifted:
        return lift(lambda base, exponent: base**exponent, self, other)

    def __neg__(self) -> Lifted:
        return lift(operator.neg, self)

    def __pos__(self) -> Lifted:
        return self

    def __lt__(self, other: Lifted) -> bool:
        return self._compare(other, operator.lt)

    def __le__(self, other: Lifted) -> bool:
        return self._compare(other, operator.le)

    def __gt__(self, other: Lifted) -> bool:
        return self._compare(other, operator.gt)

    def __ge__(self, other: Lifted) -> bool:
        return self._compare(other, operator.ge)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lifted) and self._compare(other, operator.eq)

    def __ne__(self, other: object) -> bool:
        return isinstance(other, Lifted) and self._compare(other, operator.ne)

    __hash__ = None  # type: ignore[assignment]  # equality is not reflexive here


def lift(function: Callable[..., float | complex], *arguments: Lifted) -> Lifted:
    """A function of floats as one of lifted numbers; errors, infinity and complex results are undefined."""
    numbers = [each.number for each in arguments]
    if None in numbers:
        return Lifted(None)
    try:
        result = function(*numbers)
    except (ArithmeticError, ValueError):
        return Lifted(None)
    return Lifted(result) if isinstance(result, float) and math.isfinite(result) else Lifted(None)


FUNCTIONS = {
    name: lambda *arguments, function=function: lift(function, *arguments)
    for name, function in {
        "abs": abs,
        "log": math.log,
        "log10": math.log10,
        "sqrt": math.sqrt,
        "min": min,
        "max": max,
    }.items()
}


def oracle(text: str, values: Mapping[str, Value]) -> object:
    """Python's value of a text in which every literal is wrapped as `number(…)`."""
    names = {name: Lifted(each if isinstance(each, float) else None) for name, each in values.items()}
    scope = {"__builtins__": {}, "number": lambda literal: Lifted(float(literal)), **FUNCTIONS, **names}
    return eval(text, scope)


literals = st.sampled_from(["0", "1", "2", "3.", ".5", "0.25", "1e-3", "2E+2", "1e200"]).map(
    lambda literal: f"number({literal})"
)
numbers = st.recursive(
    literals | st.sampled_from(NAMES),
    lambda inner: st.one_of(
        st.builds("{}{}{}".format, inner, st.sampled_from(["+", " - ", "*", " / ", "**"]), inner),
        st.builds("{}{}".format, st.sampled_from(["-", "+", "- "]), inner),
        st.builds("({})".format, inner),
        st.builds("{}({})".format, st.sampled_from(["abs", "log", "log10", "sqrt"]), inner),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner),
    ),
    max_leaves=8,
)
signs = st.sampled_from(["<", " <= ", ">", ">=", " == ", "!="])
comparisons = st.builds("{}{}{}".format, numbers, signs, numbers) | st.builds(
    "{}{}{}{}{}".format, numbers, signs, numbers, signs, numbers
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds("{} {} {}".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("not {}".format, inner),
        st.builds("({})".format, inner),
    ),
    max_leaves=4,
)
floats = st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, 3.25, -7.5, 1e-12, 1e150, 1e308])
measured = st.fixed_dictionaries({name: st.none() | floats for name in NAMES})


def _plain(text: str) -> str:
    """The generated text as a user writes it, without the oracle's mark on literals."""
    for literal in ("0", "1", "2", "3.", ".5", "0.25", "1e-3", "2E+2", "1e200"):
        text = text.replace(f"number({literal})", literal)
    return text


@given(conditions, measured)
def test_conditions_read_as_python_reads_them(text: str, values: dict[str, Value]) -> None:
    """Precedence, chains and logic are Python's, on whatever is defined and whatever is not."""
    assert oracle(text, values) is holds(_plain(text), values)


@given(numbers, measured)
def test_arithmetic_is_python_s_on_floats(text: str, values: dict[str, Value]) -> None:
    """A formula has the value that Python's floats give, or none."""
    expected = oracle(text, values)
    assert isinstance(expected, Lifted)
    assert expected.number == value(_plain(text), values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 < 2 or 1 < 2 and 2 < 1", True),
        ("not 2 < 1 or 1 < 2", True),
        ("not 1 < 2 and 2 < 1", False),
        ("2 < 3 > 1 != 2", True),
        ("-2 ** 2 == -4", True),
        ("2 ** 3 ** 2 == 512", True),
        ("2 ** -1 == 0.5", True),
        ("8 - 4 - 2 == 2", True),
        ("8 / 4 / 2 == 1", True),
        ("1 + 2 * 3 == 7", True),
    ],
)
def test_operators_bind_as_in_arithmetic_at_school(text: str, expected: bool) -> None:
    """Powers before signs before products before sums before comparisons before not, and, or."""
    assert expected is holds(text)


@given(st.text(alphabet="cosine<>=!+-*/()., 19e_&andortminabs\n", max_size=40) | st.text(max_size=30))
def test_any_text_is_a_condition_or_a_selector_error(text: str) -> None:
    """No text raises anything but SelectorError, nor a message that could not be printed."""
    try:
        outcome: bool | str = holds(text)
    except SelectorError as error:
        outcome = str(error)
    assert outcome.isprintable() if isinstance(outcome, str) else outcome in (True, False)


WORDS = (
    "cosine",
    "1",
    "2.5",
    "<",
    "==",
    "and",
    "or",
    "not",
    "(",
    ")",
    "+",
    "-",
    "**",
    "/",
    "abs",
    "min",
    ",",
)


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
def test_any_words_are_a_condition_or_a_selector_error(text: str) -> None:
    """What Python's grammar refuses is refused, and what is accepted can be evaluated."""
    try:
        accepted = holds(text) in (True, False)
    except SelectorError:
        accepted = False
    assert not accepted or _python_accepts(text)


def _python_accepts(text: str) -> bool:
    try:
        compile(text, "expression", "eval")
    except SyntaxError:
        return False
    return True


@pytest.mark.parametrize(
    "text",
    ["norm_a < 1", "norm_a >= 1", "norm_a != 1", "norm_a == norm_a", "1 / min_change > 0", "0 < 1 < norm_a"],
)
def test_undefined_compares_false(text: str) -> None:
    """No comparison with an undefined number holds, not even that it differs; its negation does."""
    assert not holds(text)
    assert holds(f"not ({text})")


@pytest.mark.parametrize(
    "text",
    [
        "1 / 0",
        "0 ** -1",
        "(-8) ** 0.5",
        "log(0)",
        "log10(-1)",
        "sqrt(-1)",
        "1e200 * 1e200",
        "10 ** 400",
        "9 ** 9 ** 9 ** 9",
        "norm_a * 0",
        "norm_a ** 0",
        "1 ** norm_a",
        "min(1, norm_a)",
        "max(norm_a, 1)",
    ],
)
def test_what_has_no_finite_value_is_undefined(text: str) -> None:
    """Domain errors, division by zero, overflow and undefined arguments give None, at once."""
    assert value(text) is None


@pytest.mark.parametrize("given_value", [None, math.nan, math.inf, -math.inf, 10**400, "changed"])
def test_values_that_are_no_finite_numbers_are_undefined(given_value: Value) -> None:
    """NaN, infinity, text and integers beyond fp64 in the table of statistics do not compare."""
    assert not holds("cosine <= 1 or cosine > 1", {"cosine": given_value})


def test_a_statistic_that_was_not_measured_is_undefined() -> None:
    """A scan without a spectrum has no stable_rank; a condition on it is false, not an error."""
    assert not holds("cosine < 2", {})


def test_the_contract_s_example_over_real_statistics() -> None:
    """`relative_change > 0.03 and cosine < 0.99` on the statistics of two small records."""
    condition = parse_expression("relative_change > 0.03 and cosine < 0.99", names=STATISTICS)
    turned = Sums(numel=2, n=2, numeric=2, sum_aa=1.0, sum_bb=1.0, sum_dd=2.0)  # a right angle
    scaled = Sums(numel=2, n=2, numeric=2, sum_aa=1.0, sum_bb=4.0, sum_dd=1.0, sum_ab=2.0)  # b = 2a
    assert condition.holds(evaluate(turned, total=turned))
    assert not condition.holds(evaluate(scaled, total=scaled))


def test_a_condition_tells_its_text_and_the_statistics_it_uses() -> None:
    """What a caller needs in order to explain, or to compute no more than is asked for."""
    text = " cosine < min(norm_a, 1) "
    condition = parse_expression(text, names=NAMES)
    assert text == condition.text
    assert {"cosine", "norm_a"} == condition.names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a statistic, a number or '(', found the end at column 1"),
        ("cosine", "is a number, not a condition"),
        (
            "cosin < 1",
            "unknown statistic 'cosin' at column 1 of the expression 'cosin < 1': nearest are cosine",
        ),
        ("Cosine < 1", "nearest are cosine"),
        ("1 < zzz", "unknown statistic 'zzz' at column 5"),
        ("__import__ < 1", "unknown statistic '__import__'"),
        ("sqr(1) < 2", "unknown function 'sqr' at column 1 of the expression 'sqr(1) < 2': nearest are sqrt"),
        ("cosine(1) < 2", "unknown function 'cosine'"),
        ("abs(1, 2) < 1", "'abs' is given 2 arguments"),
        ("min(1) < 1", "it takes two numbers or more"),
        ("max() < 1", "found ')' at column 5"),
        ("abs(1 < 2) < 1", "'abs' is given a condition"),
        ("cosine = 1", "unexpected '=' at column 8 of the expression 'cosine = 1': write '=='"),
        ("cosine < 1 && 1 < 2", "write 'and'"),
        ("cosine > 3%", "the operators are"),
        ("cosine < 1e999", "the number 1e999 is too large"),
        ("cosine < 1)", "expected an operator, found ')' at column 11"),
        ("(cosine < 1", "expected an operator or ')', found the end at column 12"),
        ("1 2", "expected an operator, found '2' at column 3"),
        ("cosine < 1 2", "expected an operator, found '2' at column 12"),
        ("1 < 2 and 3", "'and' is given a number at column 7"),
        ("not cosine", "'not' is given a number"),
        ("1 < (2 < 3)", "'<' is given a condition at column 3"),
        ("-(1 < 2)", "'-' is given a condition"),
        ("1 + (1 < 2) > 0", "'+' is given a condition"),
        ("1 < not 2 < 3", "'<' is given a condition"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_place(text: str, expected: str) -> None:
    """The message says what is wrong, at which column, and what to write instead."""
    assert expected in message(text)


def test_a_condition_is_no_formula() -> None:
    """A comparison where a number is wanted is an error, as a number is where a condition is wanted."""
    with pytest.raises(SelectorError, match="is a condition, not a number"):
        parse_formula("cosine < 1", names=NAMES)


@pytest.mark.parametrize(
    "text",
    ["(" * 900 + "1" + ")" * 900 + "<2", "-" * 1900 + "1<2", "2**" * 600 + "1<2", "not " * 400 + "1<2"],
)
def test_nesting_has_a_limit_far_from_python_s_own(text: str) -> None:
    """Depth is refused as such and cannot exhaust the stack."""
    assert f"{MAX_DEPTH} levels are the limit" in message(text)


def test_nesting_up_to_the_limit_is_accepted() -> None:
    """One level is the expression itself, each parenthesis is one more."""
    inside = MAX_DEPTH - 2  # the operand on the right of "<" is the second level
    assert holds("1 < " + "(" * inside + "2" + ")" * inside)


def test_length_has_a_limit_and_long_chains_are_fine() -> None:
    """A sum of a thousand terms is not deep; a text beyond the limit is refused before it is read."""
    terms = 900
    assert float(terms) == value("+".join(["1"] * terms))
    assert f"{MAX_LENGTH} are the limit" in message("1+" * MAX_LENGTH + "1>1")
