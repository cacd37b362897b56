"""Encrypted transport: clients know the server, with mTLS the server knows its clients, and both renew without a restart."""

from __future__ import annotations

import asyncio
import datetime
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from openledger_client.channels import channel, sync_channel
from openledger_client.errors import ConfigurationError, Unavailable, from_rpc_error
from openledger_client.tls import Tls
from openledger_testing.certificate_authority import HOUR, Authority, Issued
from servicekit.errors import StartupError
from servicekit.server import Service
from servicekit.server.http_routes import get
from servicekit.settings import ServiceSettings
from servicekit.testing.http import PlainErrors
from servicekit.testing.services import running
from servicekit.testing.waiting import LONGEST_S

pytestmark = pytest.mark.slow

SERVING = health_pb2.HealthCheckResponse.SERVING


async def scheme(request: Request) -> Response:
    return PlainTextResponse(request.url.scheme)


class World:
    """A service with mTLS and an HTTPS API, the authority of both sides, and the server's files."""

    def __init__(self, folder: Path, mtls: bool) -> None:
        self.authority = Authority(folder, "authority")
        self.pair = self.authority.issue("server")
        self.client = self.authority.issue("client")
        settings = ServiceSettings(
            state_dir=folder,
            auth_mode="development",
            tls_cert=self.pair.cert,
            tls_key=self.pair.key,
            tls_client_ca=self.authority.file if mtls else None,
            grace_s=1,
        )
        self.service = Service("secure", settings, None)
        self.service.add_http([get("/", scheme, public=True)], PlainErrors(), 0)

    @property
    def tls(self) -> Tls:
        """What a right client has."""
        return Tls(self.authority.file, self.client.cert, self.client.key)

    def seen(self) -> tuple[int, int]:
        """Serial numbers of the certificates that new connections to gRPC and to HTTP get."""
        assert self.service.address is not None
        assert self.service.address.http is not None
        return tuple(
            self._serial(address) for address in (self.service.address.grpc, self.service.address.http)
        )  # type: ignore[return-value]

    def _serial(self, address: str) -> int:
        context = ssl.create_default_context(cafile=str(self.authority.file))
        context.load_cert_chain(self.client.cert, self.client.key)
        context.set_alpn_protocols(["h2"])
        host, port = address.rsplit(":", 1)
        with (
            socket.create_connection((host, int(port)), timeout=LONGEST_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as encrypted,
        ):
            return x509.load_der_x509_certificate(encrypted.getpeercert(True) or b"").serial_number


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, mtls=True)
    with running(made.service):
        yield made


def check(service: Service, tls: Tls | None, host: str = "localhost") -> int:
    with sync_channel(f"{host}:{service.grpc_port}", tls=tls) as over:
        stub = health_pb2_grpc.HealthStub(over)
        return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=LONGEST_S).status)


def refused(service: Service, tls: Tls | None, host: str = "localhost") -> None:
    with pytest.raises(grpc.RpcError) as error:
        check(service, tls, host)
    assert isinstance(from_rpc_error(error.value), Unavailable)


def test_without_client_authorities_any_client_that_trusts_the_server_connects(tmp_path: Path) -> None:
    made = World(tmp_path, mtls=False)
    with running(made.service):
        assert check(made.service, Tls(made.authority.file)) == SERVING
        refused(made.service, None)
        refused(made.service, Tls(Authority(tmp_path, "other").file))


def test_with_mtls_a_client_of_the_authority_connects(world: World) -> None:
    assert check(world.service, world.tls) == SERVING


Wrong = Callable[[World, Path], Tls | None]


def _of(world: World, issued: Issued) -> Tls:
    return Tls(world.authority.file, issued.cert, issued.key)


WRONG_CLIENTS: dict[str, Wrong] = {
    "plain text": lambda world, folder: None,
    "no certificate": lambda world, folder: Tls(world.authority.file),
    "of another authority": lambda world, folder: _of(world, Authority(folder, "forger").issue("forged")),
    "expired": lambda world, folder: _of(world, world.authority.issue("old", valid=-HOUR)),
    "itself signed by no authority": lambda world, folder: _of(
        world, Issued(world.client.cert, Authority(folder, "x").issue("stolen").key)
    ),
    "trusts another authority": lambda world, folder: Tls(
        Authority(folder, "other").file, world.client.cert, world.client.key
    ),
}


@pytest.mark.parametrize("wrong", WRONG_CLIENTS.values(), ids=WRONG_CLIENTS)
def test_with_mtls_a_wrong_client_is_refused(world: World, tmp_path: Path, wrong: Wrong) -> None:
    refused(world.service, wrong(world, tmp_path))


@pytest.mark.parametrize(
    ("host", "valid"), [("another.example", HOUR), ("localhost", -HOUR)], ids=["wrong SAN", "expired"]
)
def test_a_client_refuses_a_wrong_server(tmp_path: Path, host: str, valid: datetime.timedelta) -> None:
    authority = Authority(tmp_path, "authority")
    pair = authority.issue("server", host, valid)
    settings = ServiceSettings(
        state_dir=tmp_path, auth_mode="development", tls_cert=pair.cert, tls_key=pair.key, grace_s=1
    )
    with running(Service("secure", settings, None)) as service:
        refused(service, Tls(authority.file))


def test_new_connections_get_renewed_certificates_and_running_calls_go_on(world: World) -> None:
    before = world.pair.serial
    assert world.seen() == (before, before)
    with sync_channel(f"localhost:{world.service.grpc_port}", tls=world.tls) as over:
        watching = health_pb2_grpc.HealthStub(over).Watch(health_pb2.HealthCheckRequest(), timeout=LONGEST_S)
        assert next(watching).status == SERVING
        renewed = world.authority.issue("renewed")
        after = renewed.serial
        world.pair.replaced_by(renewed)
        assert world.seen() == (after, after)
        assert watching.is_active()
        assert check(world.service, world.tls) == SERVING


def test_files_that_do_not_fit_together_leave_the_certificate_that_stands(world: World) -> None:
    before = world.pair.serial
    half = world.authority.issue("half")
    half.key.replace(world.pair.key)  # the agent has written one of two files
    assert world.seen() == (before, before)
    half.cert.replace(world.pair.cert)
    assert world.seen() == (world.pair.serial, world.pair.serial)
    world.pair.cert.write_text("not PEM")
    world.pair.key.unlink()
    assert world.seen()[0] != before


def test_withdrawn_client_authorities_are_refused_without_a_restart(world: World, tmp_path: Path) -> None:
    assert check(world.service, world.tls) == SERVING
    newer = Authority(tmp_path, "newer")
    old_ca = tmp_path / "old.pem"
    old_ca.write_bytes(world.authority.file.read_bytes())
    newer.file.replace(world.authority.file)
    refused(world.service, Tls(old_ca, world.client.cert, world.client.key))
    issued = newer.issue("new-client")
    assert check(world.service, Tls(old_ca, issued.cert, issued.key)) == SERVING


def test_a_clients_channel_brings_its_renewed_certificate(world: World, tmp_path: Path) -> None:
    """The old certificate's authority is withdrawn: only a channel with the new one continues."""
    old_ca = tmp_path / "old.pem"
    old_ca.write_bytes(world.authority.file.read_bytes())
    newer = Authority(tmp_path, "newer")
    with sync_channel(
        f"localhost:{world.service.grpc_port}", tls=Tls(old_ca, world.client.cert, world.client.key)
    ) as over:
        stub = health_pb2_grpc.HealthStub(over)
        watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=LONGEST_S)
        assert next(watching).status == SERVING
        newer.file.replace(world.authority.file)
        world.client.replaced_by(newer.issue("renewed-client"))
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=LONGEST_S).status == SERVING
        assert watching.is_active()


async def test_an_asyncio_channel_does_so_too(world: World, tmp_path: Path) -> None:
    old_ca = tmp_path / "old.pem"
    old_ca.write_bytes(world.authority.file.read_bytes())
    newer = Authority(tmp_path, "newer")
    tls = Tls(old_ca, world.client.cert, world.client.key)
    async with channel(f"localhost:{world.service.grpc_port}", tls=tls) as over:
        stub: Any = health_pb2_grpc.HealthStub(over)
        watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=LONGEST_S)
        assert (await watching.read()).status == SERVING
        newer.file.replace(world.authority.file)
        world.client.replaced_by(newer.issue("renewed-client"))
        assert (await stub.Check(health_pb2.HealthCheckRequest(), timeout=LONGEST_S)).status == SERVING
        assert not watching.done()
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching.read()


def test_the_http_server_accepts_only_tls_as_well(world: World) -> None:
    assert world.service.address is not None
    assert world.service.address.http is not None
    host, port = world.service.address.http.rsplit(":", 1)
    context = ssl.create_default_context(cafile=str(world.authority.file))
    encrypted = http.client.HTTPSConnection("localhost", int(port), context=context, timeout=LONGEST_S)
    encrypted.request("GET", "/")
    assert encrypted.getresponse().read() == b"https"
    encrypted.close()
    plain = http.client.HTTPConnection(host, int(port), timeout=LONGEST_S)
    plain.request("GET", "/")
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.getresponse()
    plain.close()


@pytest.mark.server
def test_a_process_renews_its_certificate_and_stays_the_same_process(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    pair = authority.issue("server")
    program = (
        "import sys\nfrom servicekit.server import Service, serve\nfrom servicekit.settings import ServiceSettings\n"
        "sys.exit(serve(ServiceSettings, lambda settings: Service('secure', settings, None)))"
    )
    environment = {
        **os.environ,
        "OPENLEDGER_STATE_DIR": str(tmp_path),
        "OPENLEDGER_AUTH_MODE": "development",
        "OPENLEDGER_TLS_CERT": str(pair.cert),
        "OPENLEDGER_TLS_KEY": str(pair.key),
        "OPENLEDGER_GRPC_HOST": "0.0.0.0",  # allowed: it is encrypted
    }
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["grpc"].rsplit(":", 1)[1]

        def serial() -> int:
            pem = ssl.get_server_certificate(("127.0.0.1", int(port)), timeout=LONGEST_S)
            return x509.load_pem_x509_certificate(pem.encode()).serial_number

        assert serial() == pair.serial
        renewed = authority.issue("renewed")
        after = renewed.serial
        pair.replaced_by(renewed)
        assert serial() == after
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 0
    assert "certificate renewed" in err
    assert "INSECURE" not in err


def test_a_certificate_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    settings = ServiceSettings(
        state_dir=tmp_path, auth_mode="development", tls_cert=tmp_path / "no.crt", tls_key=tmp_path / "no.key"
    )
    with pytest.raises(StartupError, match=r"cannot read .*no\.key: No such file"):
        Service("secure", settings, None)
    with pytest.raises(ConfigurationError, match="cannot read"):
        sync_channel("localhost:1", tls=Tls(tmp_path / "no.pem"))


def test_a_key_of_another_certificate_is_one_line(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    one, other = authority.issue("one"), authority.issue("other")
    settings = ServiceSettings(
        state_dir=tmp_path, auth_mode="development", tls_cert=one.cert, tls_key=other.key
    )
    with pytest.raises(StartupError, match=r"other\.key is not the key of .*one\.crt"):
        Service("secure", settings, None)
