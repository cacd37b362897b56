"""Only the registry (`openledger_client.services`) names services: no SQL, no module of a service, in any other string.

An import linter does not see strings. These tests read every string of the shipped code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from openledger_client import services

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = ROOT / "libs" / "client" / "openledger_client" / "services.py"
SHIPPED = [
    folder
    for pattern in ("cli/*", "ops/*", "libs/*/*", "services/*/*", "examples/*/*")
    for folder in sorted(ROOT.glob(pattern))
    if (folder / "__init__.py").is_file() and folder.name != "tests"
]
BY_FOLDER = {folder.name: folder for folder in SHIPPED}
OPERATORS = ("openledger_cli", "openledger_ops")
SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+TABLE|ALTER\s+TABLE)\b",
    re.DOTALL,
)
ALSO_WORDS = {"datanet", "inference", "attribution"}
"""Names of services that are words of the field too: fields of records and groups of commands are called so."""


def strings(file: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string constant that is not a docstring."""
    tree = ast.parse(file.read_text(), str(file))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def sources(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*.py") if file != REGISTRY]


def module_of_a_service(text: str) -> str | None:
    """The package that a string names a module of: `trainer.ray_head` names one, the topic `datanet.snapshot.v1` none."""
    for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)+", text):
        package, *path = word.split(".")
        if package in {service.module for service in services.ALL}:
            module = BY_FOLDER[package].joinpath(*path)
            if module.with_suffix(".py").is_file() or (module / "__init__.py").is_file():
                return package
    return None


def test_the_code_that_is_read_is_all_there_is() -> None:
    assert set(OPERATORS) | {service.module for service in services.ALL} <= BY_FOLDER.keys()
    assert len([each for folder in SHIPPED for each in sources(folder)]) > 200


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: str(folder.name))
def test_no_string_names_a_module_of_another_package_s_service(folder: Path) -> None:
    named = [
        f"{file.relative_to(ROOT)}:{line}: {text!r}"
        for file in sources(folder)
        for line, text in strings(file)
        if module_of_a_service(text) not in (None, folder.name)
    ]
    assert named == []


@pytest.mark.parametrize("package", OPERATORS)
def test_operators_code_names_services_by_the_registry(package: str) -> None:
    names = {service.name for service in services.ALL} - ALSO_WORDS
    named = [
        f"{file.relative_to(ROOT)}:{line}: {text!r}"
        for file in sources(BY_FOLDER[package])
        for line, text in strings(file)
        if text in names
    ]
    assert named == []


@pytest.mark.parametrize("package", [*OPERATORS, "openledger_client"])
def test_no_sql_and_no_database_library_outside_the_services(package: str) -> None:
    folder = BY_FOLDER[package]
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in sources(folder)
        for line, text in strings(file)
        if SQL.search(text)
    ]
    for file in sources(folder):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [
                f"{file.relative_to(ROOT)}: imports {name}"
                for name in modules
                if name.split(".")[0] in ("sqlalchemy", "sqlite3", "psycopg") or "database" in name.split(".")
            ]
    assert found == []


def test_every_service_is_in_the_registry_with_modules_that_exist() -> None:
    packages = {folder.name for folder in SHIPPED if folder.parent.parent == ROOT / "services"}
    assert {service.module for service in services.ALL} == packages
    for service in services.ALL:
        for module in (service.module, *service.programs.values()):
            assert find_spec(module) is not None, f"{service}: no module {module}"


def test_every_service_has_its_audit_module() -> None:
    for service in services.ALL:
        assert (BY_FOLDER[service.module] / "audit.py").is_file(), service.name
