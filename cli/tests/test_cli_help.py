"""Help at 80 columns shows every name whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from openledger_cli.__main__ import app
from openledger_cli.lazy import LazyCommand


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with the words that call it."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), get_command(app))]
    while waiting:
        words, command = waiting.pop()
        found = command.load() if isinstance(command, LazyCommand) else command
        yield " ".join(words), found
        for name in getattr(found, "commands", None) or (found.list_commands(None) if not words else ()):
            waiting.append(((*words, name), found.get_command(None, name)))


COMMANDS = dict(commands())


@pytest.mark.parametrize("words", COMMANDS)
def test_help_cuts_no_name(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = COMMANDS[words]
    result = CliRunner().invoke(app, [*words.split(), "--help"])
    assert result.exit_code == 0, result.output
    shown = result.output
    assert "…" not in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    for parameter in command.params:
        for text in [
            *parameter.opts,
            parameter.envvar or "",
            parameter.metavar or "",
            parameter.help or "",
        ]:
            for word in text.split():
                assert word in shown, f"{word!r} is cut or broken in\n{shown}"
    for name in getattr(command, "commands", ()):
        assert command.commands[name].help.split("\n")[0].split()[-1] in shown
