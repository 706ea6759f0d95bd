"""The commands by what they are for; a command's module is imported when the command is named."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from capsbench.errors import unknown_name


@dataclass(frozen=True, slots=True)
class About:
    """What `--help` says of a command before its module is imported.

    Attributes:
        module: below `capsbench.cli`; its function is called like the command.
        help: the first line of the function's docstring.
    """

    module: str
    help: str


class LazyGroup(TyperGroup):
    """Commands of which only the one that runs is imported. An unknown name is answered with the legal ones.

    Attributes:
        sections: of `--help`, with the commands in each by name.
    """

    sections: ClassVar[Mapping[str, Mapping[str, About]]] = {}

    def list_commands(self, _ctx: Any) -> list[str]:  # noqa: ANN401 - typer's own class or click's
        """Names of the commands, in the order of `--help`."""
        return [name for section in self.sections.values() for name in section]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - likewise
        """Import the command of a name.

        Raises:
            BadInput: there is none.
        """
        known = {name: about for section in self.sections.values() for name, about in section.items()}
        if cmd_name in known:
            return _load(cmd_name, known[cmd_name])
        if cmd_name.startswith("-"):
            return None
        raise unknown_name("command", cmd_name, self.list_commands(ctx))

    def format_commands(self, _ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - likewise
        """Write the list of commands for `--help`."""
        width = max(map(len, self.list_commands(_ctx)))
        for title, section in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), about.help) for name, about in section.items()])


def group(cls: type[LazyGroup], help_text: str, example: str) -> typer.Typer:
    """A Typer application whose commands `cls` knows."""
    return typer.Typer(
        cls=cls,
        help=help_text,
        epilog=f"Example: {example}",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def _load(name: str, about: About) -> Any:  # noqa: ANN401 - typer's own class or click's
    module = import_module(f"capsbench.cli.{about.module}")
    if hasattr(module, "app"):
        return typer.main.get_command(module.app)
    function = next(getattr(module, each) for each in (name, f"{name}_") if hasattr(module, each))
    example = module.EXAMPLES[name] if hasattr(module, "EXAMPLES") else module.EXAMPLE
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name, epilog=f"Example: {example}")(function)
    return typer.main.get_command(alone)
