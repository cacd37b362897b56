"""Fields of equal types cannot be swapped unseen: a dataclass with more than four fields takes them by keyword only.

Private fields are state with a default, which callers do not pass: they do not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("libs", "services", "cli", "ops", "examples")
MOST_POSITIONAL = 4


def _shipped_files() -> Iterator[Path]:
    for folder in SHIPPED:
        for path in (ROOT / folder).rglob("*.py"):
            if not {"tests", ".venv", "node_modules"} & set(path.relative_to(ROOT).parts):
                yield path


def _named(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _positional_fields(node: ast.ClassDef) -> int:
    """Returns how many fields a dataclass takes by position; 0 for another class."""
    for decorator in node.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        if _named(call.func if call else decorator) != "dataclass":
            continue
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in (call.keywords if call else [])}
        if options.get("kw_only") == "True" or options.get("init") == "False":
            return 0
        return sum(isinstance(each, ast.AnnAssign) and _is_argument(each) for each in node.body)
    return 0


def _is_argument(field: ast.AnnAssign) -> bool:
    default = field.value
    options = default.keywords if isinstance(default, ast.Call) and _named(default.func) == "field" else []
    left_out = any(each.arg == "init" and ast.unparse(each.value) == "False" for each in options)
    private = isinstance(field.target, ast.Name) and field.target.id.startswith("_")
    return not left_out and not private and "ClassVar" not in ast.unparse(field.annotation)


def test_dataclasses_over_four_fields_are_keyword_only() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {_positional_fields(node)} fields"
        for path in _shipped_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and _positional_fields(node) > MOST_POSITIONAL
    ]
    assert not found, "add kw_only=True:\n" + "\n".join(found)
