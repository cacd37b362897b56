"""No durable step without a crash point, no crash point without a scenario that hits it: read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from openledger_testing.crash import coverage, durable_steps, harness
from servicekit import crash


def test_every_durable_step_has_a_crash_point_or_a_reason() -> None:
    without = [
        call
        for call in durable_steps.raw_steps()
        if f"{call.function} {call.name}" not in coverage.WITHOUT_POINT
    ]
    listed = "\n".join(map(str, without))
    assert not without, (
        f"use a primitive (servicekit.files, database, objects), or `with crash.step(...)`:\n{listed}"
    )


def test_every_reason_still_names_a_step() -> None:
    raw = {f"{call.function} {call.name}" for call in durable_steps.raw_steps()}
    assert set(coverage.WITHOUT_POINT) <= raw
    assert set(coverage.NOT_COVERED) <= {call.function for call in durable_steps.primitive_steps()}


def test_every_crash_point_belongs_to_a_scenario() -> None:
    assert set(coverage.COVERED) == set(harness.SCENARIOS)
    lost = [call for call in durable_steps.primitive_steps() if not _is_covered(call.function)]
    assert not lost, "say in openledger_testing.crash.coverage which scenario hits these:\n" + "\n".join(
        map(str, lost)
    )


def _is_covered(function: str) -> bool:
    return function in coverage.NOT_COVERED or coverage.scenario_of(function) is not None


@pytest.mark.parametrize(
    "step",
    [
        "path.rename(other)", "temporary.replace(path)", "os.replace(a, b)", "session.commit()", "path.write_text(x)",
        'path.open("ab")', 'open(path, mode="w")', "w3.eth.send_raw_transaction(raw)", 'connection.execute("COMMIT")',
        "client.submit_job(entrypoint=x)", "call(lambda: client.stop_job(id))", "shutil.rmtree(folder)",
    ],
)  # fmt: skip
def test_a_new_step_without_a_point_is_found(step: str, tmp_path: Path) -> None:
    packages = {"fresh": tmp_path}
    source = tmp_path / "storage.py"
    source.write_text(f"class Storage:\n    def move(self):\n        {step}\n")
    assert [call.function for call in durable_steps.raw_steps(packages)] == ["fresh.storage:Storage.move"]
    source.write_text(
        f"class Storage:\n    def move(self):\n        with crash.step('it'):\n            {step}\n"
    )
    assert not list(durable_steps.raw_steps(packages))
    assert [call.function for call in durable_steps.primitive_steps(packages)] == [
        "fresh.storage:Storage.move"
    ]


@pytest.mark.parametrize(
    "harmless",
    ['text.replace("a", "b")', "dataclasses.replace(x, a=1)", 'path.open("rb")', "items.remove(x)"],
)
def test_what_is_not_durable_is_ignored(harmless: str, tmp_path: Path) -> None:
    packages = {"fresh": tmp_path}
    (tmp_path / "storage.py").write_text(f"def move():\n    {harmless}\n")
    assert not list(durable_steps.raw_steps(packages))
    assert not list(durable_steps.primitive_steps(packages))


_DIES = """
from servicekit import crash
from servicekit.files import write_whole
from pathlib import Path
import sys
def keep(path, text):
    write_whole(path, text)
keep(Path(sys.argv[1]), "old")
keep(Path(sys.argv[1]), "new")
"""


@pytest.mark.parametrize(
    ("point", "content"), [("before rename#2", "old"), ("after rename#2", "new"), ("after rename#3", "new")]
)
def test_the_environment_ends_a_process_at_a_point_named_by_its_caller(
    point: str, content: str, tmp_path: Path
) -> None:
    at = f"__main__:keep {point}"
    environment = {"OPENLEDGER_CRASH_AT": at, "OPENLEDGER_CRASH_RECORD": str(tmp_path / "points")}
    done = subprocess.run([sys.executable, "-c", _DIES, tmp_path / "file"], env=environment, check=False)
    assert done.returncode == (0 if point.endswith("#3") else crash.EXIT_CODE)
    assert (tmp_path / "file").read_text() == content
    assert (tmp_path / "points").read_text().splitlines()[:2] == [
        "__main__:keep before rename",
        "__main__:keep after rename",
    ]


def test_the_functions_of_the_source_have_the_names_that_python_gives_them() -> None:
    """`durable_steps` names functions from the syntax, crash points from the running code: they must agree."""
    source = "class A:\n    def b(self):\n        return lambda: (lambda: 1)\ndef c():\n    def d():\n        pass\n"
    named = {name for name, _ in durable_steps._functions(ast.parse(source), with_lambdas=True)}
    running: set[str] = set()

    def collect(code: object) -> None:
        for constant in getattr(code, "co_consts", ()):
            if hasattr(constant, "co_qualname") and constant.co_name not in ("A",):
                running.add(constant.co_qualname)
            collect(constant)

    collect(compile(source, "x", "exec"))
    assert named == running | {"<module>"}
