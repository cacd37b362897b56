"""Tests wait for a condition by `servicekit.testing.waiting` alone: a copy of it has a bound that a slow machine breaks."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_CLOCKS = {"time.monotonic", "time.perf_counter", "time.sleep", "asyncio.sleep", "pause.wait"}
_LEFT_OUT = ("tests/support/openledger_testing/faults/",)
"""A run of faults lasts for minutes that it measures."""


def waits_in(source: str) -> Iterator[int]:
    """Yields the lines of loops that read the clock or sleep."""
    for loop in ast.walk(ast.parse(source)):
        if isinstance(loop, ast.While | ast.For | ast.AsyncFor) and any(map(_is_wait, ast.walk(loop))):
            yield loop.lineno


def _is_wait(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    turn = [ast.unparse(argument) for argument in node.args] == ["0"]  # asyncio.sleep(0): others' turn
    name = ast.unparse(node.func)
    return (name in _CLOCKS or name.endswith("Event().wait")) and not turn


def _files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "*test_*.py", "*conftest.py", "tests/support/openledger_testing"],
        cwd=_ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = [name for name in listed.stdout.split() if (_ROOT / name).exists()]
    return [name for name in names if name.endswith(".py") and not name.startswith(_LEFT_OUT)]


def test_no_test_has_a_way_to_wait_of_its_own() -> None:
    found = [f"{name}:{line}" for name in _files() for line in waits_in((_ROOT / name).read_text())]
    assert not found, "use servicekit.testing.waiting.eventually in place of the loops at\n" + "\n".join(
        found
    )


@pytest.mark.parametrize(
    "planted",
    [
        "while not done():\n    assert time.monotonic() < end",
        "while not done():\n    time.sleep(0.1)",
        "for _ in range(500):\n    threading.Event().wait(0.01)",
        "for _ in range(500):\n    pause.wait(0.01)",
        "async def f():\n    while not done():\n        await asyncio.sleep(0.01)",
    ],
)
def test_a_loop_that_waits_is_found(planted: str) -> None:
    assert list(waits_in(planted))


def test_a_loop_that_ends_by_an_event_or_gives_others_their_turn_is_none() -> None:
    assert not list(waits_in("while not ended.wait(0.05):\n    send()"))
    assert not list(waits_in("async def f():\n    for _ in range(3):\n        await asyncio.sleep(0)"))
