"""Commands that are imported when they run, so that `openledger --help` and each command load only what they need."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


@dataclass(frozen=True)
class Entry:
    """One top-level command."""

    module: str
    """Module in `openledger_cli.commands`."""
    attribute: str
    """A `typer.Typer` or a function in that module."""
    help: str
    """The first line of the command's own help; a test compares them."""


COMMANDS: dict[str, Entry] = {
    "datanet": Entry("datanet", "app", "Contributed, reviewed, sealed data."),
    "train": Entry("training", "app", "Fine-tuning: what it will do, its progress, its result."),
    "base-model": Entry("base_model", "app", "Base models: what models are tuned from."),
    "model": Entry("model", "app", "Model versions: evaluation, gate, promotion."),
    "gate": Entry("gate", "app", "The gate: verdicts for scripts, and the policies that models are held to."),
    "ask": Entry("inference", "ask", "Asks a model and streams its answer. Ctrl-C stops it."),
    "served": Entry("inference", "served", "Lists the models that answer now."),
    "attribution": Entry("attribution", "app", "Which contributions shaped an answer, and how surely."),
    "settle": Entry("settlement", "app", "What answers paid, and its proof on chain."),
    "export": Entry(
        "bundle",
        "export",
        "Writes everything needed to recheck one answer and one payout without the platform.",
    ),
    "verify": Entry(
        "bundle",
        "verify",
        "Rechecks a bundle with its bytes and an RPC address, without the platform.",
    ),
    "up": Entry(
        "local",
        "up",
        "Runs the whole platform on this machine until Ctrl-C: services, Ray, an EVM, the development issuer.",
    ),
    "status": Entry("local", "status", "Shows which services answer. Exit code 1 when one does not."),
    "token": Entry("local", "token", "Prints a token of the local development issuer."),
    "doctor": Entry(
        "doctor", "doctor", "Checks the whole platform by its public endpoints and says what to do."
    ),
    "reconcile": Entry(
        "reconcile",
        "reconcile",
        "Compares what every service has written down with the event log, the objects and the chain.",
    ),
    "objects": Entry("objects", "app", "The object store: which service needs what, and garbage collection."),
    "dlq": Entry("dlq", "app", "Events that a consumer refused: lists, shows and redrives them."),
}


class LazyCommand(TyperCommand):
    """Stands for a command in lists and help; the command itself is imported when it is used."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name=name, callback=None, help=entry.help)
        self._entry = entry

    def load(self) -> Any:
        """Imports and returns the command."""
        found = getattr(import_module(f"openledger_cli.commands.{self._entry.module}"), self._entry.attribute)
        if isinstance(found, typer.Typer):
            return get_command(found)
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(self.name)(found)
        return get_command(single)

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """Continues with the command itself."""
        return self.load().make_context(info_name, args, parent=parent, **extra)


class HelpFirst(TyperGroup):
    """A group that shows a command's help without reading its own options, whose types take a quarter of a second to load."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Shows the help when the arguments are names and then --help; else reads the options."""
        *names, last = args or [""]
        if last in ctx.help_option_names and names and not any(name.startswith("-") for name in names):
            command = self.get_command(ctx, names[0])
            if command is not None:
                with command.make_context(names[0], args[1:], parent=ctx) as below:
                    below.command.invoke(below)  # a subcommand's help; it ends the program
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Lists the commands, each with its whole first line, which plain help would cut."""
        rows = [(name, _first_line(self.get_command(ctx, name))) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _first_line(command: Any) -> str:
    return (command.help or "").strip().split("\n")[0]


def group(help: str) -> typer.Typer:
    """Returns an empty group of commands."""
    # rich_markup_mode: Rich's tables cut names at 80 columns; plain help does not.
    return typer.Typer(
        cls=HelpFirst, help=help, no_args_is_help=True, add_completion=False, rich_markup_mode=None
    )


class LazyGroup(HelpFirst):
    """The top level: every command of `COMMANDS`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns the stand-in of a command; None when there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        return None if entry is None else LazyCommand(cmd_name, entry)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Reads the options of the top level; takes --json after a command, too, where people look for it."""
        end = args.index("--") if "--" in args else len(args)
        if "--json" in args[:end]:
            args = ["--json", *(each for each in args[:end] if each != "--json"), *args[end:]]
        return super().parse_args(ctx, args)
