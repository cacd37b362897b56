"""Every path, `make` target and `openledger` command that the documentation names exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import typer

from openledger_cli.__main__ import app
from openledger_testing.repository import ROOT, package_folders

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "*/README.md", "*/*/README.md", "*/*/*/README.md")
    for path in ROOT.glob(pattern)
    if not path.relative_to(ROOT).parts[0].startswith((".", "node_modules", "out"))
)
PACKAGES = package_folders()
_TOP = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ("out", "node_modules")]
_PATH = re.compile(
    rf"(?<![\w/.$~<-])((?:{'|'.join(map(re.escape, sorted({*_TOP, *PACKAGES} - {'.git'})))})/[\w./*{{}},-]*\w[\w*}}/]*)"
)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_ANCHOR = re.compile(r"\]\(([^)#\s:]*)#([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
_PLACEHOLDER = re.compile(r"^[A-Z_]+$|^[<\[.]")


def commands(text: str, program: str) -> Iterator[str]:
    """Yields the command lines of a program: in code spans, and on the lines of code blocks."""
    lines = [
        *_CODE.findall(text),
        *(line.strip().removeprefix("$ ") for line in text.splitlines() if _is_code(line)),
    ]
    for line in lines:
        for part in re.split(r"\|\||&&|;| #|\s{3,}|\$\(|\)", line):
            part = part.strip().removeprefix(".venv/bin/")
            if part.startswith(f"{program} "):
                yield part + '"' * (part.count('"') % 2)  # an argument may continue on the next line


def _is_code(line: str) -> bool:
    return line.startswith(("    ", "$ ", "openledger ", "make "))


def missing_paths(page: Path, text: str) -> Iterator[str]:
    """Yields the paths of the repository that a page names and that are not there."""
    for name in _LINK.findall(text):
        if "://" not in name and not name.startswith("mailto:") and not (page.parent / name).exists():
            yield name
    for name in _PATH.findall(re.sub(r"https?://\S+", "", text)):
        if not all(_exists(each, page) for each in _spelled_out(name.rstrip("."))):
            yield name


def missing_anchors(page: Path, text: str) -> Iterator[str]:
    """Yields the links to a heading that its page does not have."""
    for name, anchor in _ANCHOR.findall(text):
        target = page.parent / name if name else page
        headings = re.findall(r"^#+ (.*)$", target.read_text() if name else text, re.MULTILINE)
        if anchor not in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}:
            yield f"{name}#{anchor}"


def _exists(name: str, page: Path) -> bool:
    top, _, rest = name.partition("/")
    folders = [ROOT / top, page.parent / top, *([PACKAGES[top]] if top in PACKAGES else [])]
    return any(next(folder.glob(rest or "."), None) is not None for folder in folders if folder.is_dir())


def _spelled_out(name: str) -> Iterator[str]:
    """Yields the paths of a name with {a,b} in it."""
    parts = [part.split(",") for part in re.split(r"[{}]", name)]
    yield from ("".join(chosen) for chosen in product(*parts))


def unknown_word(line: str, command: Any) -> str:
    """Returns the first subcommand or option of a command line that `openledger` does not have; "" without one."""
    words = iter(shlex.split(line.replace("...", ""), comments=True)[1:])
    for word in words:
        if word.startswith("-"):
            option = next((each for each in command.params if word.partition("=")[0] in _flags(each)), None)
            if option is None and word not in ("-h", "--help"):
                return word
            if option is not None and not option.is_flag and "=" not in word:
                next(words, None)
        elif hasattr(command, "get_command") and not _PLACEHOLDER.match(word):
            context = command.context_class(command)
            found = [command.get_command(context, each) for each in word.split("|")]
            if None in found:
                return str(word.split("|")[found.index(None)])
            command = (
                found[0].load() if hasattr(found[0], "load") else found[0]
            )  # `openledger` imports commands late
    return ""


def _flags(parameter: Any) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts] if parameter.param_type_name == "option" else []


@pytest.fixture(scope="module")
def openledger() -> Any:
    return typer.main.get_command(app)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
class TestPage:
    def test_every_path_exists(self, page: Path) -> None:
        assert list(missing_paths(page, page.read_text())) == []

    def test_every_heading_that_a_link_names_exists(self, page: Path) -> None:
        assert list(missing_anchors(page, page.read_text())) == []

    def test_every_make_target_exists(self, page: Path) -> None:
        named = {word for line in commands(page.read_text(), "make") for word in line.split()[1:2]}
        assert {word for word in named if re.fullmatch(r"[a-z-]+", word)} - _TARGETS == set()

    def test_every_openledger_command_and_option_exists(self, page: Path, openledger: Any) -> None:
        unknown = {
            line: word
            for line in commands(page.read_text(), "openledger")
            if (word := unknown_word(line, openledger))
        }
        assert unknown == {}


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("see `tests/no_such.py`", ["tests/no_such.py"]),
        ("see (libs/servicekit/servicekit/no_such.py, and more)", ["libs/servicekit/servicekit/no_such.py"]),
        ("`servicekit/eventlog/base.py` and `scripts/{lint,test}.sh`, docs/*.md", []),
        ("[a page](no-such-page.md#part)", ["no-such-page.md"]),
        ("https://example.org/tests/no_such.py", []),
    ],
)
def test_a_missing_path_is_found(text: str, missing: list[str]) -> None:
    assert list(missing_paths(ROOT / "docs" / "page.md", text)) == missing


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("openledger up", ""),
        ("openledger datanet no-such", "no-such"),
        ("openledger --state-dir x up --no-such", "--no-such"),
        ("openledger datanet|no-such --help", "no-such"),
        ("openledger --json doctor # why", ""),
    ],
)
def test_an_unknown_command_is_found(line: str, unknown: str, openledger: Any) -> None:
    assert unknown_word(line, openledger) == unknown
