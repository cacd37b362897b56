"""The rule that a refusal names is a word of the code, never what a caller sent: it is logged, and clients compare it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [file for pattern in ("libs/*/*", "services/*/*") for file in ROOT.glob(f"{pattern}/**/*.py")]


def rules() -> Iterator[tuple[str, ast.expr]]:
    """Where each rule is given, and the expression that gives it."""
    for file in SOURCES:
        if {"tests", "openledger_client"} & set(file.parts):  # the client repeats what servers said
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and len(node.args) > 2:
                name = node.func.id if isinstance(node.func, ast.Name) else ""
                if name in ("InvalidArgument", "FieldViolation"):
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", node.args[1]


def is_a_word(rule: ast.expr) -> bool:
    if isinstance(rule, ast.Constant):
        return True
    if isinstance(rule, ast.BoolOp):
        return all(map(is_a_word, rule.values))
    given = rule.attr if isinstance(rule, ast.Attribute) else rule.id if isinstance(rule, ast.Name) else ""
    return given.isupper() or "rule" in given.lower()


def test_every_rule_is_a_word_of_the_code() -> None:
    found = list(rules())
    assert len(found) > 20
    assert [f"{where}: {ast.unparse(rule)}" for where, rule in found if not is_a_word(rule)] == []
