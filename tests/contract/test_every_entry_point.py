"""Every RPC of every service and every HTTP route passes the same steps and refuses in the same way.

Two kinds of server are walked. `declared` serves what the services declare: their servicers, without an implementation,
and their routes. `behaving` serves the same names with handlers whose behaviour each test sets.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from prometheus_client import REGISTRY
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from openledger_testing.entry_point_servers import Behaviour, behaving, declaring, development, start
from openledger_testing.entry_points import ENTRIES, METHODS, ROUTES, Clients, Entry, Http, Rpc
from servicekit.auth import PERMISSIONS, ROLE_PERMISSIONS
from servicekit.errors import StartupError
from servicekit.server.http_routes import get, http_rules
from servicekit.testing.waiting import LONGEST_S, eventually

pytestmark = pytest.mark.slow
each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)

ROOT = Path(__file__).resolve().parents[2]
TRACE = "0123456789abcdef0123456789abcdef"
LARGE = bytes(4 << 20) + b"too much"

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    with ExitStack() as until:
        yield start(declaring(tmp_path_factory.mktemp("declared")), until)


@pytest.fixture(scope="module")
def _behaving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Clients, Behaviour]]:
    behaviour = Behaviour()
    with ExitStack() as until:
        settings = development(tmp_path_factory.mktemp("behaving"))
        yield start(behaving(settings, behaviour), until), behaviour


@pytest.fixture
def clients(_behaving: tuple[Clients, Behaviour]) -> Clients:
    return _behaving[0]


@pytest.fixture
def behaviour(_behaving: tuple[Clients, Behaviour]) -> Iterator[Behaviour]:
    yield _behaving[1]
    _behaving[1].reset()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """A service that takes one call of a principal, and then no more."""
    with ExitStack() as until:
        settings = development(tmp_path_factory.mktemp("strict"), rate_per_s=0.001, rate_burst=1)
        yield start(behaving(settings, Behaviour()), until)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """A service whose calls never end by themselves and may take 50 ms."""
    behaviour = Behaviour()

    async def forever() -> None:
        await asyncio.Event().wait()

    behaviour.now = forever
    with ExitStack() as until:
        settings = development(tmp_path_factory.mktemp("hasty"), default_deadline_s=0.05, max_deadline_s=0.05)
        yield start(behaving(settings, behaviour, deadline_s=0.05), until)


def some_role(entry: Entry) -> str:
    return next(role for role, granted in ROLE_PERMISSIONS.items() if entry.permission in granted)


def counted(entry: Entry, code: grpc.StatusCode) -> float:
    labels = {"method": entry.name, "code": code.name}
    return REGISTRY.get_sample_value("openledger_requests_total", labels) or 0.0


def test_there_is_something_to_walk() -> None:
    assert len(METHODS) > 30
    assert len(ROUTES) > 3


def test_no_service_serves_routes_that_are_not_walked() -> None:
    callers = {
        path.parent.name
        for path in ROOT.glob("services/*/*/*.py")
        if "add_http(" in path.read_text() and "tests" not in path.parts
    }
    assert callers == {"inference"}


def test_every_permission_is_needed_by_some_entry() -> None:
    assert {entry.permission for entry in ENTRIES} == PERMISSIONS


@each_entry
def test_it_declares_a_permission_that_some_role_has(entry: Entry) -> None:
    assert entry.permission in PERMISSIONS
    assert any(entry.permission in granted for role, granted in ROLE_PERMISSIONS.items() if role != "admin")


def test_a_route_that_does_not_declare_who_may_call_it_does_not_start() -> None:
    async def handle(request: Request) -> Response:
        return PlainTextResponse("")

    for route in (
        get("/", handle),
        get("/", handle, permission="inference.models.read", public=True),
        get("/", handle, permission="no.such.permission"),
    ):
        with pytest.raises(StartupError, match="GET /"):
            http_rules([route])


@each_entry
def test_only_roles_with_the_permission_pass(entry: Entry, declared: Clients) -> None:
    outcomes = {role: entry.call(declared, declared.bearer(role)).code for role in ROLE_PERMISSIONS}
    denied = {role for role, code in outcomes.items() if code is Code.PERMISSION_DENIED}
    assert denied == {role for role, granted in ROLE_PERMISSIONS.items() if entry.permission not in granted}
    passed = {code for role, code in outcomes.items() if role not in denied}
    assert passed <= {Code.UNIMPLEMENTED, Code.INVALID_ARGUMENT}


@each_entry
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "TOKEN_MISSING"),
        ({"authorization": "Basic dXNlcjpwYXNz"}, "TOKEN_SCHEME"),
        ({"authorization": "Bearer not.a.token"}, "TOKEN_MALFORMED"),
        ({"authorization": "Bearer " + "a" * (17 << 10)}, "TOKEN_MALFORMED"),
        ({"authorization": "Bearer " + "a" * (60 << 10)}, "TOKEN_MALFORMED"),
    ],
    ids=["no token", "another scheme", "no JWT", "a longer token than any", "the longest header"],
)
def test_without_a_valid_token_nothing_is_read(
    entry: Entry, headers: dict[str, str], reason: str, declared: Clients
) -> None:
    refused = entry.call(declared, headers, b"\xff")
    assert (refused.code, refused.reason) == (Code.UNAUTHENTICATED, reason)


@each_entry
def test_a_principal_that_calls_too_often_learns_when_to_return(entry: Entry, strict: Clients) -> None:
    headers = strict.bearer(some_role(entry), principal=entry.name)
    assert entry.call(strict, headers).code is Code.OK
    refused = entry.call(strict, headers)
    assert (refused.code, refused.reason) == (Code.RESOURCE_EXHAUSTED, "RATE_LIMIT")
    assert refused.retry_after_s is not None
    assert refused.retry_after_s > 0


@pytest.mark.parametrize(
    "entry", [each for each in ENTRIES if each.takes_one_message], ids=lambda entry: entry.name
)
def test_a_request_that_is_too_large_or_malformed_is_refused(entry: Entry, declared: Clients) -> None:
    headers = declared.bearer(some_role(entry))
    large = entry.call(declared, headers, LARGE)
    assert (large.code, large.reason) == (Code.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")
    malformed = entry.call(declared, headers, b"\xff")
    assert (malformed.code, malformed.reason) == (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT")


@each_entry
def test_a_call_that_takes_too_long_is_ended(entry: Entry, hasty: Clients) -> None:
    ended = entry.call(
        hasty, hasty.bearer(some_role(entry)), timeout=LONGEST_S if _has_default(entry) else 0.1
    )
    assert ended.code is Code.DEADLINE_EXCEEDED


def _has_default(entry: Entry) -> bool:
    return isinstance(entry, Http) or (isinstance(entry, Rpc) and entry.kind == "unary_unary")


@each_entry
def test_a_defect_shows_the_callers_trace_id_and_no_details_and_is_counted(
    entry: Entry, clients: Clients, behaviour: Behaviour
) -> None:
    async def fail() -> None:
        raise RuntimeError("the password is hunter2")

    behaviour.now = fail
    before = counted(entry, Code.INTERNAL)
    headers = {**clients.bearer(some_role(entry)), "traceparent": f"00-{TRACE}-0123456789abcdef-01"}
    failed = entry.call(clients, headers)
    assert (failed.code, failed.reason) == (Code.INTERNAL, "INTERNAL")
    assert "hunter2" not in failed.text
    assert TRACE in failed.text
    eventually(lambda: counted(entry, Code.INTERNAL) > before, "the count of the defect")


@each_entry
def test_a_client_that_leaves_cancels_its_call(entry: Entry, clients: Clients, behaviour: Behaviour) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    behaviour.now = wait
    before = counted(entry, Code.CANCELLED)
    entry.leave(clients, clients.bearer(some_role(entry)), begun)
    assert ended.wait(LONGEST_S)
    eventually(lambda: counted(entry, Code.CANCELLED) > before, "the count of the cancelled call")
