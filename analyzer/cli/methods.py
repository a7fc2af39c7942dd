"""`mergescope methods`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from analyzer.cli import options

if TYPE_CHECKING:
    from analyzer.methods import Method

_TAKES = {"no": "", "may": "may take", "must": "needs"}


@click.command(short_help="List the merge methods: formulas, parameters, origins.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")
@options.quiet
def methods(name: str | None, as_json: bool, quiet: bool) -> None:  # noqa: ARG001 - there is nothing to hush
    """The methods of `mergescope merge --method`: formulas, parameters, origins.

    \b
    mergescope methods         all of them
    mergescope methods ties    one
    """  # noqa: D301 - click wants the character that \b stands for
    import orjson

    from analyzer.cli import terminal
    from analyzer.methods import METHODS
    from analyzer.recipes.recipe import Recipe, method_of

    chosen = METHODS if name is None else {name: method_of(Recipe(method=name))}
    with terminal.pipe_may_close():
        if as_json:
            document = {key: _document(method) for key, method in chosen.items()}
            click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        else:
            _print(chosen)


def _print(chosen: Any) -> None:
    from rich.text import Text

    from analyzer.cli.terminal import OutputConsole, spelled, wrapped

    console = OutputConsole()
    for name, method in chosen.items():
        console.print(Text(name, style="bold"))
        for line in _lines(method):
            console.print(wrapped(spelled(line, console.encoding), width=console.width, mark=" "))
        console.print()


def _lines(method: Method) -> list[str]:
    takes = [
        f"{_TAKES[need]} {what}"
        for need, what in ((method.base, "--base C"), (method.models, "--model PATH=WEIGHT"))
        if need != "no"
    ]
    parameters = [
        f"--param {name}={parameter.default:g}: {parameter.meaning} ({parameter.low:g} … {parameter.high:g})"
        for name, parameter in method.parameters.items()
    ]
    return [method.formula, *(["; ".join(takes)] if takes else []), *parameters, f"from: {method.source}"]


def _document(method: Method) -> dict[str, Any]:
    return {
        "formula": method.formula,
        "source": method.source,
        "base": method.base,
        "models": method.models,
        "predictable": method.coefficients is not None,
        "parameters": {
            name: {"default": p.default, "low": p.low, "high": p.high, "meaning": p.meaning}
            for name, p in method.parameters.items()
        },
    }
