"""Finds in the source, by its syntax, where something durable happens, and whether a crash point stands there.

Two questions. A *raw* step is a call that outlives the process by itself: a rename, a removal, an append, a COMMIT, a
transaction sent to a chain, a job submitted. The function that holds one must hold a crash point too, or stand below with
the reason why not. A *primitive* step is a call of one of the primitives: the runs of the scenarios together must hit all of
them, or the harness would not know what a kill there does.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from openledger_testing.repository import package_folders

PACKAGES = {name: folder for name, folder in package_folders().items() if name != "openledger_client"}
"""What services are made of. The client runs in its callers' programs and keeps no state of the platform."""

_RAW = frozenset(
    {
        *(
            "rename",
            "rmtree",
            "unlink",
            "rmdir",
            "truncate",
            "ftruncate",
            "link",
            "symlink",
            "copytree",
            "copyfile",
        ),
        *("write_text", "write_bytes", "save_file", "save_pretrained", "open_memmap"),
        *(
            "begin",
            "begin_nested",
            "executescript",
            "send_raw_transaction",
            "submit_job",
            "stop_job",
            "delete_job",
        ),
    }
)
"""Methods and functions that outlive the process. `replace`, `open`, `commit` and `execute` are looked at more closely."""

_FILES = frozenset(
    {"write_whole", "replacing", "remove"}
)  # of servicekit.files, where they are imported from there
_PRIMITIVES = re.compile(
    r"^(transaction|run_in_transaction|write_json|write_failure|clear_failure)$|\.(put_bytes|put_file)$"
    r"|^crash\.(point|step)$|producer\.send$|consumer\.commit$|\bwal\.append$|_wal\.release$|_chain\.send$"
    r"|_runner\.(submit|stop)$"
)
"""Calls by which a function takes a durable step through a primitive."""


@dataclass(frozen=True)
class Call:
    """A call in a function; `function` as crash points name it."""

    path: Path
    line: int
    function: str
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.name}() in {self.function}"


def raw_steps(packages: Mapping[str, Path] = PACKAGES) -> Iterator[Call]:
    """Raw steps in functions that hold no crash point."""
    for path, module, tree in _modules(packages):
        for function, body in _functions(tree, with_lambdas=False):
            calls = list(_calls(body, into_lambdas=True))
            if any(ast.unparse(call.func) in ("crash.point", "crash.step", "replacing") for call in calls):
                continue
            for call in calls:
                if _is_raw(call):
                    yield Call(path, call.lineno, f"{module}:{function}", _name(call))


def primitive_steps(packages: Mapping[str, Path] = PACKAGES) -> Iterator[Call]:
    """Uses of a primitive, outside the primitives themselves."""
    for path, module, tree in _modules(packages):
        if _is_primitive(tree):
            continue
        files = _from_files(tree)
        for function, body in _functions(tree, with_lambdas=True):
            for call in _calls(body, into_lambdas=False):
                if _PRIMITIVES.search(ast.unparse(call.func)) or (
                    isinstance(call.func, ast.Name) and call.func.id in files
                ):
                    yield Call(path, call.lineno, f"{module}:{function}", _name(call))


def _from_files(tree: ast.Module) -> set[str]:
    imports = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "servicekit.files"
    )
    return {alias.name for node in imports for alias in node.names} & _FILES


def _modules(packages: Mapping[str, Path]) -> Iterator[tuple[Path, str, ast.Module]]:
    for package, folder in packages.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            module = ".".join([package, *(part for part in parts if part != "__init__")])
            yield path, module, ast.parse(path.read_text())


def _is_primitive(tree: ast.Module) -> bool:
    return any(ast.unparse(call.func) == "crash.primitive" for call in _calls(tree, into_lambdas=False))


def _functions(tree: ast.Module, *, with_lambdas: bool) -> Iterator[tuple[str, ast.AST]]:
    """Functions by the name that `co_qualname` gives them, and the module's own lines as "<module>"."""
    yield "<module>", tree

    def inner(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{prefix}{child.name}", child
                yield from inner(child, f"{prefix}{child.name}.<locals>.")
            elif isinstance(child, ast.ClassDef):
                yield from inner(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.Lambda) and with_lambdas:
                yield f"{prefix}<lambda>", child
                yield from inner(child, f"{prefix}<lambda>.<locals>.")
            else:
                yield from inner(child, prefix)

    yield from inner(tree, "")


def _calls(body: ast.AST, *, into_lambdas: bool) -> Iterator[ast.Call]:
    """Calls in a function's own lines; functions and classes within it answer for themselves."""
    stops: tuple[type, ...] = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    if not into_lambdas:
        stops = (*stops, ast.Lambda)
    for child in ast.iter_child_nodes(body):
        if isinstance(child, ast.Call):
            yield child
        if not isinstance(child, stops):
            yield from _calls(child, into_lambdas=into_lambdas)


def _name(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _is_raw(call: ast.Call) -> bool:
    name, arguments = _name(call), len(call.args) + len(call.keywords)
    if name in _RAW:
        return True
    if (
        name == "replace"
    ):  # Path.replace(target), os.replace; not str.replace(a, b), nor dataclasses.replace(x, a=b)
        of_path = isinstance(call.func, ast.Attribute) and len(call.args) == arguments == 1
        return of_path or ast.unparse(call.func) == "os.replace"
    if name == "commit":  # of a session or a connection; a consumer's takes offsets, and is a primitive
        return arguments == 0
    if name == "execute":  # sqlite3's COMMIT
        return any(
            isinstance(arg, ast.Constant) and str(arg.value).upper().startswith("COMMIT") for arg in call.args
        )
    if ast.unparse(call.func) in ("torch.save", "shutil.move"):
        return True
    return name in ("open", "fdopen") and _opens_to_write(call)


def _opens_to_write(call: ast.Call) -> bool:
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    modes = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    flags = ast.dump(call)
    return (
        any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes if mode)
        or "O_CREAT" in flags
    )
