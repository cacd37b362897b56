"""Encrypted transport: clients know the server, and with mTLS the server knows its clients."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servicekit.client import Tls, sync_channel
from servicekit.errors import StartupError, Unavailable, from_rpc_error
from servicekit.server import Service
from servicekit.settings import ServiceSettings
from servicekit.testing import running


class Authority:
    """Issues certificates for localhost into a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(self._name, self._key.public_key(), authority=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert, private = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        cert.write_bytes(self._sign(subject, key.public_key(), authority=False).public_bytes(Encoding.PEM))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return cert, private

    def _sign(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, authority: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def service(tmp_path: Path, authority: Authority, request: pytest.FixtureRequest) -> Iterator[Service]:
    cert, key = authority.issue("server")
    changes: dict[str, Any] = {"tls_client_ca": authority.file} if request.param == "mtls" else {}
    settings = ServiceSettings(
        state_dir=tmp_path, auth_mode="development", tls_cert=cert, tls_key=key, grace_s=1, **changes
    )
    with running(Service("secure", settings, None)) as started:
        yield started


def check(service: Service, tls: Tls | None) -> int:
    with sync_channel(f"localhost:{service.grpc_port}", tls=tls) as over:
        stub = health_pb2_grpc.HealthStub(over)
        return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status)


@pytest.mark.parametrize("service", ["tls"], indirect=True)
def test_a_client_that_trusts_the_authority_connects_and_no_other(
    service: Service, authority: Authority, tmp_path: Path
) -> None:
    assert check(service, Tls(authority.file)) == health_pb2.HealthCheckResponse.SERVING
    for wrong in (None, Tls(Authority(tmp_path, "other").file)):
        with pytest.raises(grpc.RpcError) as refused:
            check(service, wrong)
        assert isinstance(from_rpc_error(refused.value), Unavailable)


@pytest.mark.parametrize("service", ["mtls"], indirect=True)
def test_with_mtls_a_client_must_show_a_certificate_of_the_authority(
    service: Service, authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue("client")
    assert check(service, Tls(authority.file, cert, key)) == health_pb2.HealthCheckResponse.SERVING
    forged = Authority(tmp_path, "forger").issue("client")
    for wrong in (Tls(authority.file), Tls(authority.file, *forged)):
        with pytest.raises(grpc.RpcError):
            check(service, wrong)


def test_a_certificate_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    settings = ServiceSettings(
        state_dir=tmp_path, auth_mode="development", tls_cert=tmp_path / "no.crt", tls_key=tmp_path / "no.key"
    )
    with pytest.raises(StartupError, match=r"cannot read .*no\.key: No such file"):
        Service("secure", settings, None).run()
    with pytest.raises(StartupError, match="cannot read"):
        sync_channel("localhost:1", tls=Tls(tmp_path / "no.pem"))
