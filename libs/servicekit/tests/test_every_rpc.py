"""Every RPC of every service says who may call it, and the server holds it to that."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import openledger
import pytest
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

from servicekit.auth import PERMISSIONS, ROLE_PERMISSIONS
from servicekit.client import sync_channel
from servicekit.errors import PermissionDenied, Unauthenticated, from_rpc_error
from servicekit.server import Service
from servicekit.server.access import rule_of
from servicekit.settings import ServiceSettings
from servicekit.testing import running, token


def modules(suffix: str) -> list[Any]:
    """All generated modules below ``openledger`` whose name ends so."""
    found = pkgutil.walk_packages(openledger.__path__, "openledger.")
    return [importlib.import_module(module.name) for module in found if module.name.endswith(suffix)]


def every_method() -> list[MethodDescriptor]:
    files: list[FileDescriptor] = [module.DESCRIPTOR for module in modules("_pb2")]
    services = [service for file in files for service in file.services_by_name.values()]
    return [method for service in services for method in service.methods]


METHODS = every_method()


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One server with every service there is; their methods are not implemented, which only who may call them learns."""
    state = tmp_path_factory.mktemp("state")
    made = Service("everything", ServiceSettings(state_dir=state, auth_mode="development"), None)
    for module in modules("_pb2_grpc"):
        for name, servicer in vars(module).items():
            if name.endswith("Servicer") and isinstance(servicer, type):
                made.add_servicer(getattr(module, f"add_{name}_to_server"), servicer())
    with running(made):
        yield made


@pytest.fixture
def call(service: Service) -> Iterator[Callable[[MethodDescriptor, str | None], grpc.StatusCode]]:
    """Calls a method with an empty request as a role, or without token; returns how it ended."""
    assert service.address is not None
    with sync_channel(service.address.grpc) as channel:

        def make(method: MethodDescriptor, role: str | None) -> grpc.StatusCode:
            kind = "_".join(
                "stream" if s else "unary" for s in (method.client_streaming, method.server_streaming)
            )
            metadata = () if role is None else (("authorization", f"Bearer {token(service, [role])}"),)
            request = iter([b""]) if method.client_streaming else b""
            try:
                answer = getattr(channel, kind)(path_of(method))(request, metadata=metadata, timeout=10)
                if method.server_streaming:
                    next(answer)
            except grpc.RpcError as error:
                return from_rpc_error(error).code
            return grpc.StatusCode.OK

        yield make


def test_there_are_rpcs_to_check() -> None:
    assert len(METHODS) > 30


@pytest.mark.parametrize("method", METHODS, ids=path_of)
def test_it_declares_a_permission_that_some_role_has(method: MethodDescriptor) -> None:
    permission = rule_of(method).permission
    assert permission in PERMISSIONS
    assert any(permission in granted for role, granted in ROLE_PERMISSIONS.items() if role != "admin")


@pytest.mark.parametrize("method", METHODS, ids=path_of)
def test_only_roles_with_the_permission_pass(
    method: MethodDescriptor, call: Callable[[MethodDescriptor, str | None], grpc.StatusCode]
) -> None:
    assert call(method, None) is Unauthenticated.code
    permission = rule_of(method).permission
    outcomes = {role: call(method, role) for role in ROLE_PERMISSIONS}
    denied = {role for role, code in outcomes.items() if code is PermissionDenied.code}
    assert denied == {role for role, granted in ROLE_PERMISSIONS.items() if permission not in granted}
    passed = {code for role, code in outcomes.items() if role not in denied}
    assert passed <= {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT}


def test_every_permission_is_needed_by_some_rpc() -> None:
    assert {rule_of(method).permission for method in METHODS} == PERMISSIONS


def test_a_token_that_does_not_verify_passes_nowhere(service: Service, tmp_path: Path) -> None:
    assert service.address is not None
    with sync_channel(service.address.grpc, token="not.a.token") as channel:
        for method in METHODS:
            if not (method.client_streaming or method.server_streaming):
                with pytest.raises(grpc.RpcError) as refused:
                    channel.unary_unary(path_of(method))(b"")
                assert isinstance(from_rpc_error(refused.value), Unauthenticated)
