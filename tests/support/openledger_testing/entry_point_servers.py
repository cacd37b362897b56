"""Services that have every entry point (`entry_points`): without an implementation, or with handlers that a test sets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from inference.openai_api import OpenAiErrors
from openledger_testing.entry_points import ROUTES, SERVICES, Clients, Rpc, generated
from servicekit.errors import Unimplemented
from servicekit.server import Service
from servicekit.settings import ServiceSettings
from servicekit.testing.services import running


class Behaviour:
    """What handlers of `behaving` do now; set by a test, awaited in the server's loop."""

    def __init__(self) -> None:
        self.now: Callable[[], Awaitable[None]]
        self.reset()

    def reset(self) -> None:
        async def nothing() -> None:
            pass

        self.now = nothing


def start(service: Service, until: ExitStack) -> Clients:
    return Clients(until.enter_context(running(service)), until)


def declaring(state: Path) -> Service:
    """Returns a service with everything that any service declares."""
    service = Service("everything", development(state), None)
    for module in generated("_pb2_grpc"):
        for name, servicer in vars(module).items():
            if name.endswith("Servicer") and isinstance(servicer, type):
                service.add_servicer(getattr(module, f"add_{name}_to_server"), servicer())

    async def unimplemented(request: Request, body: object) -> Response:
        raise Unimplemented()

    service.add_http([replace(route, handle=unimplemented) for route in ROUTES], OpenAiErrors(), 0)
    return service


def behaving(settings: ServiceSettings, behaviour: Behaviour, deadline_s: float | None = None) -> Service:
    """Returns a service with the same names, whose handlers do what `behaviour` says."""
    service = Service("everything", settings, None)
    for described in SERVICES:
        service.add_servicer(_adder(described), behaviour)

    async def handle(request: Request, body: object) -> Response:
        await behaviour.now()
        return PlainTextResponse("done")

    routes = [replace(route, handle=handle, body=None, deadline_s=deadline_s) for route in ROUTES]
    service.add_http(routes, OpenAiErrors(), 0)
    return service


def _adder(service: ServiceDescriptor) -> Callable[[Any, Any], None]:
    def add(behaviour: Behaviour, server: Any) -> None:
        handlers = {method.name: _handler(Rpc(method).kind, behaviour) for method in service.methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    return add


def _handler(kind: str, behaviour: Behaviour) -> Any:
    async def one(request: Any, context: Any) -> bytes:
        await behaviour.now()
        return b""

    async def many(request: Any, context: Any) -> Any:
        await behaviour.now()
        yield b""

    handle = many if kind.endswith("stream") else one
    return getattr(grpc, f"{kind}_rpc_method_handler")(handle)


def development(state: Path, **changes: Any) -> ServiceSettings:
    return ServiceSettings(state_dir=state, auth_mode="development", grace_s=1, **changes)
