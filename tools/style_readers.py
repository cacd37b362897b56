"""Reads each kind of file into a `Measure`: Markdown, Makefile, Dockerfile, shell, protobuf, Solidity, Python."""

from __future__ import annotations

import ast
import keyword
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from style_counts import Measure, is_shipped

MANY_ARGUMENTS = 6
_MEASURED = (
    *(ast.Constant, ast.JoinedStr, ast.Expr, ast.Call),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
)
_METRICS = ("counter", "gauge", "histogram")
# Strings come first, so that what is in them is neither. Three times as fast as `tokenize`, and the same on every
# version of Python: since 3.12 `tokenize` finds names within f-strings.
_TOKEN = re.compile(
    r"""[rRbBuUfF]{0,2}(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"|(?P<comment>\#[^\n]*)|(?P<name>[^\W\d]\w*)|\d[\w.]*",
    re.DOTALL,
)


def reader_of(path: str) -> Callable[[Measure, str, str], None] | None:
    """Returns the reader of a file by its name, or None for a file that is not measured."""
    name = path.rpartition("/")[2]
    if name == "Makefile":
        return _makefile
    if name == "Dockerfile":
        return _shell
    return {".py": _python, ".md": _markdown, ".proto": _proto, ".sol": _solidity, ".sh": _shell}.get(
        Path(name).suffix
    )


def _markdown(into: Measure, path: str, text: str) -> None:
    into.prose(path, "markdown", re.sub(r"\]\([^)]*\)|https?://\S+", "]", text), 1)


def _makefile(into: Measure, path: str, text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        _, mark, help_text = line.partition("##")
        if mark:
            into.prose(path, "help", help_text, number)


def _shell(into: Measure, path: str, text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        comment = re.search(r"(?:^|\s)#(?!!)(.*)", line)
        if comment:
            into.prose(path, "comment", comment.group(1), number)


def _proto(into: Measure, path: str, text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        code, _, comment = line.partition("//")
        into.prose(path, "proto", comment, number)
        for name in re.findall(r"[A-Za-z_]\w*", re.sub(r'"[^"]*"', "", code)):
            into.identifier(path, "proto", name, number)


def _solidity(into: Measure, path: str, text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        code, _, comment = line.partition("//")
        into.prose(path, "comment", comment, number)
        for name in re.findall(r"[A-Za-z_]\w*", code):
            into.identifier(path, "identifier", name, number)


def _python(into: Measure, path: str, text: str) -> None:
    tree = ast.parse(text)
    nodes = [node for node in ast.walk(tree) if isinstance(node, _MEASURED)]
    texts = {
        id(node.value): node.value for node in nodes if isinstance(node, ast.Expr) and _is_text(node.value)
    }
    not_code = _tokens(into, path, text)
    for docstring in texts.values():
        not_code |= set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    code = [number for number in _nonblank(text) if number not in not_code]
    into.lines["shipped" if is_shipped(path) else "other"] += len(code)
    if is_shipped(path) and code:
        into.files.append(len(code))
    for node in nodes:
        if isinstance(node, ast.Call):
            _call(into, path, node)
        if is_shipped(path) and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            into.functions.append(bisect_right(code, node.end_lineno or 0) - bisect_left(code, node.lineno))
        if isinstance(node, ast.ClassDef):
            _columns(into, path, node)
    kept = {number for number, line in enumerate(text.splitlines(), 1) if "# old name" in line}
    for string, kind, value in _strings(nodes, texts, path):
        if string.lineno not in kept:
            into.prose(path, kind, value, string.lineno)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _nonblank(text: str) -> list[int]:
    return [number for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _tokens(into: Measure, path: str, text: str) -> set[int]:
    """Counts names and comments; returns the lines that hold a comment only."""
    only_comments: set[int] = set()
    line, counted = 1, 0
    for token in _TOKEN.finditer(text):
        if token.lastgroup is None:
            continue
        line, counted = line + text.count("\n", counted, token.start()), token.start()
        if token.lastgroup == "comment":
            into.prose(path, "comment", token.group(), line)
            if not text[text.rfind("\n", 0, counted) + 1 : counted].strip():
                only_comments.add(line)
        elif not keyword.iskeyword(token.group()):
            into.identifier(path, "identifier", token.group(), line)
    return only_comments


def _strings(
    nodes: Sequence[ast.AST], texts: dict[int, ast.expr], path: str
) -> Iterator[tuple[ast.expr, str, str]]:
    """Yields each string with its kind: docstring, help, string (of shipped code) or test string."""
    help_texts = {id(node.body[0].value) for node in nodes if _is_command(node, path)}  # type: ignore[attr-defined]
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    kind = "string" if is_shipped(path) else "test string"
    migration = "/migrations/versions/" in path
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) in texts:
            yield node, "help" if id(node) in help_texts else "docstring", node.value
        elif migration:
            continue
        elif isinstance(node, ast.JoinedStr):
            pieces = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node, kind, "".join(pieces)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node, kind, node.value


def _is_command(node: ast.AST, path: str) -> bool:
    """Returns whether a node is a command's function, whose docstring is help text."""
    if not isinstance(node, ast.FunctionDef) or not isinstance(node.body[0], ast.Expr):
        return False
    if not is_shipped(path):
        return False
    return any(word in ast.unparse(d) for d in node.decorator_list for word in (".command", ".callback"))


def _call(into: Measure, path: str, node: ast.Call) -> None:
    given = [arg for arg in node.args if not _repeats(arg)]
    if len(given) >= MANY_ARGUMENTS and not all(isinstance(arg, ast.Constant) for arg in given):
        into.positional.append(f"{path}:{node.lineno}: {ast.unparse(node.func)}({len(given)} arguments)")
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    first = node.args[0] if node.args else None
    if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
        return
    if name in _METRICS:
        for part in ast.walk(ast.Tuple(elts=[first, *node.args[2:3]])):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                into.identifier(path, "metric", part.value, node.lineno)
    elif name == "Column" and "/migrations/versions/" not in path:
        into.identifier(path, "column", first.value, node.lineno)


def _repeats(arg: ast.expr) -> bool:
    """Returns whether an argument is one of a list by nature: a pair, `*more`, a column of a table."""
    called = ast.unparse(arg.func) if isinstance(arg, ast.Call) else ""
    return isinstance(arg, ast.Tuple | ast.Starred) or called.endswith(("Column", "Constraint", "Index"))


def _columns(into: Measure, path: str, node: ast.ClassDef) -> None:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and "Mapped[" in ast.unparse(statement.annotation):
            into.identifier(path, "column", ast.unparse(statement.target), statement.lineno)
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__tablename__":
            into.identifier(path, "column", ast.literal_eval(statement.value), statement.lineno)
