"""A command whose `--help` lists its options in sections: thirty in one row are read by nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class SectionedOption(click.Option):
    """An option that stands in a section of the help."""

    def __init__(self, *arguments: Any, section: str = "Options", **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.section = section


class SectionedCommand(click.Command):
    """Sections stand in the order of their first options; options of no section come last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help of the options, a section each."""
        sections: dict[str, list[tuple[str, str]]] = {}
        plain = "Other options"
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Argument):  # they stand in the line of usage
                continue
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "section", plain), []).append(record)
        for title in sorted(sections, key=lambda title: title == plain):
            with formatter.section(title):
                formatter.write_dl(sections[title])


def section(title: str, *parameters: tuple[tuple[str, ...], dict[str, Any]]) -> Callable[[Command], Command]:
    """Options of one section, each as (names, settings of `click.option`), in the order of the help."""

    def decorate(command: Command) -> Command:
        for names, settings in reversed(parameters):
            command = click.option(*names, cls=SectionedOption, section=title, **settings)(command)
        return command

    return decorate


def option(*names: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """One option of a section."""
    return names, settings
