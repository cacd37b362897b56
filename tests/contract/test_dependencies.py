"""Every dependency has an upper bound and a reason, so that a fresh lock never brings an unseen major release."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openledger_testing.repository import ROOT, project_files

REQUIREMENTS = sorted(ROOT.glob("requirements*.in"))
_BOUND = re.compile(r"<|==|~=")


def declared(project: Path) -> Iterator[str]:
    """Yields every requirement of a pyproject.toml: of the package, its extras and its build."""
    content: dict[str, Any] = tomllib.loads(project.read_text())
    yield from content["build-system"]["requires"]
    yield from content["project"].get("dependencies", [])
    for extra in content["project"].get("optional-dependencies", {}).values():
        yield from extra


def problem(requirement: str, line: str) -> str:
    """What a requirement, written on a line of a file, lacks; "" when it lacks nothing."""
    if not _BOUND.search(requirement.partition(";")[0]):
        return f"{requirement}: has no upper bound; write for example {requirement}>=1.2,<2"
    if "#" not in line:
        return f"{requirement}: has no reason; write it as a comment on the same line"
    return ""


@pytest.mark.parametrize("project", project_files(), ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_every_dependency_of_a_package_has_an_upper_bound_and_a_reason(project: Path) -> None:
    lines = project.read_text().splitlines()
    others = [name for name in declared(project) if not name.startswith("openledger-")]
    problems = [problem(name, next(line for line in lines if f'"{name}"' in line)) for name in others]
    assert [each for each in problems if each] == []


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda path: path.name)
def test_every_tool_has_an_upper_bound_and_a_reason(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    problems = [problem(line.partition("#")[0].strip(), line) for line in lines]
    assert [each for each in problems if each] == []


@pytest.mark.parametrize(
    ("requirement", "line", "expected"),
    [
        ("a>=1", '"a>=1", # why', "no upper bound"),
        ("a ; python_version < '3.12'", "a # why", "no upper bound"),
        ("a>=1,<2", '"a>=1,<2",', "no reason"),
        ("a>=1,<2", '"a>=1,<2", # why', ""),
        ("a==1.0", '"a==1.0", # why', ""),
    ],
)
def test_what_is_missing_is_named(requirement: str, line: str, expected: str) -> None:
    found = problem(requirement, line)
    assert (expected in found) if expected else not found
