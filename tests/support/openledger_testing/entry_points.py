"""Every RPC of every service and every HTTP route, each called in the same way."""

from __future__ import annotations

import importlib
import pkgutil
import re
import socket
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import httpx
import openledger
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from inference.openai_api import openai_routes
from openledger_client.errors import from_rpc_error
from servicekit.server import Service
from servicekit.server.access import rule_of
from servicekit.server.http_routes import HttpRoute
from servicekit.server.http_status import code_of
from servicekit.testing.services import token
from servicekit.testing.waiting import LONGEST_S

Code = grpc.StatusCode


def generated(suffix: str) -> list[Any]:
    """Returns all generated modules below ``openledger`` whose name ends so."""
    found = pkgutil.walk_packages(openledger.__path__, "openledger.")
    return [importlib.import_module(module.name) for module in found if module.name.endswith(suffix)]


SERVICES: list[ServiceDescriptor] = [
    service for module in generated("_pb2") for service in module.DESCRIPTOR.services_by_name.values()
]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]
ROUTES: list[HttpRoute] = [*openai_routes(None, 60)]  # type: ignore[arg-type] # their handlers are replaced


@dataclass(frozen=True)
class Outcome:
    """How a call ended, as its client saw it."""

    code: grpc.StatusCode
    reason: str = ""
    text: str = ""
    retry_after_s: float | None = None


class Entry(Protocol):
    """An RPC or a route, as a client calls it."""

    name: str
    permission: str | None
    takes_one_message: bool

    def call(
        self, clients: Clients, headers: dict[str, str], body: bytes = b"", timeout: float = LONGEST_S
    ) -> Outcome:
        """Calls it and waits for its end."""

    def leave(self, clients: Clients, headers: dict[str, str], begun: threading.Event) -> None:
        """Calls it, and disconnects once `begun` is set."""


class Rpc:
    def __init__(self, method: MethodDescriptor) -> None:
        self.name = f"/{method.containing_service.full_name}/{method.name}"
        self.permission = rule_of(method).permission
        self.takes_one_message = not method.client_streaming
        self._answers_stream = bool(method.server_streaming)
        self.kind = "_".join(
            "stream" if s else "unary" for s in (method.client_streaming, method.server_streaming)
        )

    def _begin(self, clients: Clients, headers: dict[str, str], body: bytes, timeout: float) -> Any:
        method = getattr(clients.channel, self.kind)(self.name)
        request: Any = body if self.takes_one_message else iter([body])
        metadata = [*headers.items()]
        if self._answers_stream:
            return method(request, metadata=metadata, timeout=timeout)
        return method.future(request, metadata=metadata, timeout=timeout)

    def call(
        self, clients: Clients, headers: dict[str, str], body: bytes = b"", timeout: float = LONGEST_S
    ) -> Outcome:
        call = self._begin(clients, headers, body, timeout)
        try:
            list(call) if self._answers_stream else call.result()
        except grpc.RpcError as failed:
            error = from_rpc_error(failed)
            return Outcome(error.code, error.reason, str(error), getattr(error, "retry_after_s", None))
        return Outcome(Code.OK)

    def leave(self, clients: Clients, headers: dict[str, str], begun: threading.Event) -> None:
        call = self._begin(clients, headers, b"", LONGEST_S)
        assert begun.wait(LONGEST_S)
        call.cancel()


class Http:
    def __init__(self, route: HttpRoute) -> None:
        self.name = route.name
        self.permission = route.permission
        self.takes_one_message = route.body is not None
        self._method = route.method
        self._path = re.sub(r"\{.*?\}", "x", route.path)

    def call(
        self, clients: Clients, headers: dict[str, str], body: bytes = b"", timeout: float = LONGEST_S
    ) -> Outcome:
        reply = clients.http.request(self._method, self._path, headers=headers, content=body, timeout=timeout)
        if reply.status_code < 400:
            return Outcome(Code.OK)
        error = reply.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        retry = reply.headers.get("retry-after")
        code = Code.RESOURCE_EXHAUSTED if reply.status_code == 413 else code_of(reply.status_code)
        code = Code.INTERNAL if reply.status_code == 500 else code
        return Outcome(code, error["code"], error["message"], None if retry is None else float(retry))

    def leave(self, clients: Clients, headers: dict[str, str], begun: threading.Event) -> None:
        host, port = clients.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=LONGEST_S) as connection:
            lines = [f"{self._method} {self._path} HTTP/1.1", f"host: {host}", "content-length: 0"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            assert begun.wait(LONGEST_S)


ENTRIES: list[Entry] = [*map(Rpc, METHODS), *map(Http, ROUTES)]


class Clients:
    """Connections to one running service, and tokens for it."""

    def __init__(self, service: Service, until: ExitStack) -> None:
        assert service.address is not None
        assert service.address.http is not None
        self._service = service
        self.address = service.address.http
        options = [("grpc.max_send_message_length", -1)]
        self.channel = until.enter_context(grpc.insecure_channel(service.address.grpc, options))
        self.http = until.enter_context(httpx.Client(base_url=f"http://{self.address}"))

    def bearer(self, role: str, principal: str = "tester") -> dict[str, str]:
        return {"authorization": f"Bearer {token(self._service, [role], principal)}"}
