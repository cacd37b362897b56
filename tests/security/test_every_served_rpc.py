"""Who may call what, asked of the real services: every RPC that each of them serves, with every role and with none."""

from __future__ import annotations

from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor import MethodDescriptor

from openledger_client.errors import from_rpc_error
from openledger_testing.all_services import AllServices
from servicekit.auth import PERMISSIONS, ROLE_PERMISSIONS
from servicekit.server.access import rule_of

pytestmark = pytest.mark.server

DENIED, UNKNOWN_CALLER = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED


def outcome(over: grpc.Channel, method: MethodDescriptor, token: str | None) -> grpc.StatusCode:
    """Returns the status of a call whose bytes are no message: a caller without permission never learns that they are none."""
    kind = "_".join("stream" if s else "unary" for s in (method.client_streaming, method.server_streaming))
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    data = b"\xff"
    call: Any = getattr(over, kind)(f"/{method.containing_service.full_name}/{method.name}")
    try:
        answer = call(iter([data]) if method.client_streaming else data, metadata=metadata, timeout=60)
        if method.server_streaming:
            next(answer)
    except grpc.RpcError as error:
        return from_rpc_error(error).code
    return grpc.StatusCode.OK


def test_every_rpc_of_every_service_lets_in_the_roles_that_its_proto_names_and_no_other(
    platform: AllServices,
) -> None:
    tokens = {role: platform.token(f"some-{role}", role) for role in ROLE_PERMISSIONS}
    walked = []
    for service, methods in platform.served().items():
        with platform.channel(service) as over:
            for method in methods:
                permission = rule_of(method).permission
                assert permission in PERMISSIONS, method.full_name
                assert outcome(over, method, None) is UNKNOWN_CALLER, method.full_name
                assert outcome(over, method, "not.a.token") is UNKNOWN_CALLER, method.full_name
                seen = {role: outcome(over, method, token) for role, token in tokens.items()}
                expected = {
                    role: grpc.StatusCode.INVALID_ARGUMENT if permission in granted else DENIED
                    for role, granted in ROLE_PERMISSIONS.items()
                }
                assert seen == expected, method.full_name
                walked.append(permission)
    assert set(walked) == PERMISSIONS
    assert len(walked) > 40


@pytest.mark.parametrize(
    ("method", "path", "permission"),
    [
        ("GET", "/v1/models", "inference.models.read"),
        ("GET", "/v1/models/baseModels/tiny", "inference.models.read"),
        ("POST", "/v1/completions", "inference.answers.generate"),
        ("POST", "/v1/chat/completions", "inference.answers.generate"),
    ],
)
def test_the_http_api_admits_the_roles_that_grpc_admits(
    platform: AllServices, method: str, path: str, permission: str
) -> None:
    url = f"http://{platform.services['inference'].http}{path}"
    for headers in ({}, {"authorization": "Bearer not.a.token"}, {"authorization": "Basic YTpi"}):
        assert httpx.request(method, url, headers=headers, timeout=60).status_code == 401
    for role, granted in ROLE_PERMISSIONS.items():
        headers = {"authorization": f"Bearer {platform.token(f'some-{role}', role)}"}
        status = httpx.request(method, url, headers=headers, content=b"gibberish", timeout=60).status_code
        let_in = 400 if method == "POST" else 200
        assert status == (let_in if permission in granted else 403), role
