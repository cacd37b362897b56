"""Nothing waits without an end: every call that waits for another thread or process has a deadline, or says why it needs none.

A call that is right without one has a comment `# waits: <reason>` on one of its lines. Calls in coroutines are not checked:
the deadline of the call or the stop of the service cancels them. Ages are computed at scrape time, so a gauge of seconds is
never set by the thread whose age it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from openledger_testing.repository import ROOT

SHIPPED = ("libs", "services", "cli", "ops", "examples")
MARK = "# waits:"

NO_ARGUMENTS = {"join", "result", "wait", "communicate"}
"""Methods that wait without an end when they are called without arguments: threads, futures, events, processes."""
NEED_TIMEOUT = {
    "subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output",
    "socket.create_connection", "create_connection",
    "OTLPSpanExporter", "concurrent.futures.wait", "as_completed",
}  # fmt: skip
HTTP = {
    "get",
    "post",
    "put",
    "delete",
    "head",
    "patch",
    "request",
    "stream",
    "Client",
    "AsyncClient",
    "Session",
}
PER_READ: dict[str, set[str]] = {
    "urlopen": set(), "HTTPConnection": set(), "HTTPSConnection": set(), "HTTPProvider": set(),
    "AsyncHTTPProvider": set(), "JobSubmissionClient": set(),
}  # fmt: skip
"""What is bounded by no timeout that it takes, because a peer that drips starts it again; and the modules that may call it."""
KAFKA = {"KafkaConsumer", "KafkaProducer", "KafkaAdminClient"}
ONE_PLACE = {
    "create_engine": "libs/servicekit/servicekit/database/engine.py",
    "psycopg.connect": "",
    "grpc.insecure_channel": "ops/openledger_ops/health.py",
    "grpc.secure_channel": "ops/openledger_ops/health.py",
}
"""What only one module calls, which sets the deadlines of all."""


def found_in(source: str, path: str) -> Iterator[str]:
    """Yields what is wrong in a module, one line each."""
    tree, lines = ast.parse(source), source.splitlines()
    queues = set(_queues(tree))
    for node in _outside_coroutines(tree):
        if not isinstance(node, ast.Call):
            continue
        problem = _problem(node, path, queues)
        marked = any(MARK in line for line in lines[node.lineno - 1 : node.end_lineno])
        if problem and not marked:
            yield f"{path}:{node.lineno}: {problem}"


def _problem(node: ast.Call, path: str, queues: set[str]) -> str:
    name = ast.unparse(node.func)
    method = name.rpartition(".")[2]
    keywords = {keyword.arg for keyword in node.keywords}
    bounded = bool(keywords & {"timeout", "timeout_s", "within_s", None})
    if isinstance(node.func, ast.Attribute) and method in NO_ARGUMENTS and not node.args and not bounded:
        return f"{method}() waits without an end"
    if method == "wait_for" and len(node.args) < 2 and not bounded:
        return "wait_for() without timeout waits without an end"
    if method == "acquire" and not node.args and not keywords & {"timeout", "blocking"}:
        return "acquire() waits without an end"
    if (
        method == "get"
        and not node.args
        and not bounded
        and name.rpartition(".")[0].rpartition(".")[2] in queues
    ):
        return "get() of a queue waits without an end"
    if method == "flock" and "LOCK_NB" not in ast.unparse(node) and "LOCK_UN" not in ast.unparse(node):
        return "flock without LOCK_NB waits without an end: use servicekit.deadlines.lock_file"
    if method in PER_READ and path not in PER_READ[method]:
        return f"{name} times out per read, not per exchange: use servicekit.http_client"
    if name in NEED_TIMEOUT and not bounded:
        return f"{name} without timeout"
    if (
        name.partition(".")[0] in ("httpx", "requests")
        and name.count(".") == 1
        and method in HTTP
        and path != "libs/servicekit/servicekit/http_client.py"
    ):
        return f"{name} times out per read, not per exchange: use servicekit.http_client"
    if method in KAFKA and "request_timeout_ms" not in keywords:
        return f"{method} without request_timeout_ms"
    if name in ONE_PLACE and ONE_PLACE[name] != path:
        return f"{name} outside of {ONE_PLACE[name] or 'servicekit.database'} has no deadlines"
    return ""


def _outside_coroutines(tree: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, ast.AsyncFunctionDef):
            yield child
            yield from _outside_coroutines(child)


def _queues(tree: ast.AST) -> Iterator[str]:
    """Yields the names that are assigned a queue."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Call):
            continue
        if ast.unparse(node.value.func).rpartition(".")[2] in ("Queue", "SimpleQueue", "LifoQueue"):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield ast.unparse(target).rpartition(".")[2]


def _shipped_files() -> Iterator[Path]:
    for folder in SHIPPED:
        for path in (ROOT / folder).rglob("*.py"):
            parts = set(path.relative_to(ROOT).parts)
            if not {"tests", "testing", "testing.py", ".venv", "node_modules"} & parts:
                yield path


def test_every_wait_of_shipped_code_has_a_deadline() -> None:
    found = [
        line for path in _shipped_files() for line in found_in(path.read_text(), str(path.relative_to(ROOT)))
    ]
    assert not found, f"give a deadline, or say why none is needed with `{MARK} <reason>`:\n" + "\n".join(
        found
    )


@pytest.mark.parametrize(
    "planted",
    [
        "thread.join()",
        "future.result()",
        "event.wait()",
        "process.communicate()",
        "condition.wait_for(lambda: done)",
        "lock.acquire()",
        "self.queue = queue.Queue()\nself.queue.get()",
        "fcntl.flock(file, fcntl.LOCK_EX)",
        "subprocess.run(['ls'])",
        "urllib.request.urlopen('http://h')",
        "urllib.request.urlopen('http://h', timeout=5)",
        "http.client.HTTPConnection('h', timeout=5)",
        "Web3(HTTPProvider('http://h', request_kwargs={'timeout': 20}))",
        "web3.HTTPProvider('http://h')",
        "socket.create_connection(('h', 1))",
        "httpx.get('http://h')",
        "httpx.stream('POST', 'http://h', timeout=120)",
        "requests.post('http://h', timeout=20)",
        "requests.Session()",
        "KafkaProducer(bootstrap_servers=['h'])",
        "create_engine('postgresql://h')",
        "grpc.insecure_channel('h:1')",
    ],
)
def test_a_wait_without_a_deadline_is_found(planted: str) -> None:
    assert list(found_in(planted, "planted.py"))


def test_a_reason_is_accepted_and_so_is_a_coroutine() -> None:
    assert not list(found_in("event.wait()  # waits: until the operator restarts it", "planted.py"))
    assert not list(found_in("async def f():\n    await event.wait()", "planted.py"))
    assert not list(found_in("thread.join(3)\nfuture.result(timeout=2)\n','.join(names)", "planted.py"))


def ages_set_by_hand(declarations: str, uses: str) -> list[str]:
    """Returns the gauges of seconds that are declared in one text and set in another. A time (`_timestamp_seconds`) may be."""
    ages = {
        target.id: str(node.value.args[0].value)
        for node in ast.walk(ast.parse(declarations))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        if ast.unparse(node.value.func) == "gauge" and isinstance(node.value.args[0], ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return [
        f"{node.lineno}: {ages[name]}"
        for node in ast.walk(ast.parse(uses))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".set")
        for name in [ast.unparse(node.func).split(".labels")[0].removesuffix(".set").rpartition(".")[2]]
        if ages.get(name, "").endswith("_seconds") and not ages[name].endswith("_timestamp_seconds")
    ]


def test_no_age_is_set_by_the_thread_that_may_be_stuck() -> None:
    modules = {path: path.read_text() for path in _shipped_files()}
    declared = [text for path, text in modules.items() if "gauge(" in text]
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path, text in modules.items()
        if ".set(" in text
        for declarations in declared
        for line in ages_set_by_hand(declarations, text)
    ]
    assert not found, "use set_function with the time that it is the age of:\n" + "\n".join(found)


def test_an_age_that_is_set_is_found() -> None:
    assert ages_set_by_hand("A = gauge('openledger_a_seconds', 'x')", "metrics.A.set(3)")
    assert not ages_set_by_hand("A = gauge('openledger_a_timestamp_seconds', 'x')", "metrics.A.set(3)")
