"""The server's certificate, key and client authorities: read from files, and read again when these change.

Certificates live for days or hours and are renewed by an agent (cert-manager, SPIFFE) that writes new files. A new
connection gets what the files say now; running connections keep what they began with, until their greatest age.
"""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from servicekit.errors import StartupError

logger = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Pem:
    """What the files held at one moment."""

    cert: bytes
    key: bytes
    client_ca: bytes | None

    @property
    def grpc(self) -> grpc.ServerCertificateConfiguration:
        """gRPC's form of it."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.cert)], self.client_ca)

    @property
    def expires(self) -> str:
        """When the certificate ends, for people."""
        return x509.load_pem_x509_certificate(self.cert).not_valid_after_utc.isoformat()


class Certificates:
    """Watches the files of one server. A look costs three stat calls, and happens once a handshake.

    Raises:
        StartupError: a file cannot be read, is no PEM, or the key is not the certificate's.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._files = (key, cert) if client_ca is None else (key, cert, client_ca)
        self._lock = threading.Lock()
        self._stamp = self._look()
        self.pem = self._read()
        self._given = self.pem
        self._https = (self.pem, self._context())

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC. With client authorities every client must show a certificate (mTLS)."""
        return grpc.dynamic_ssl_server_credentials(
            self._given.grpc,
            self._changed,  # type: ignore[arg-type] # None is allowed, the stubs do not say so
            require_client_authentication=self._given.client_ca is not None,
        )

    def https(self) -> ssl.SSLContext:
        """For an HTTP door, whose clients bring tokens and no certificates."""
        return self._https[1]

    def refresh(self) -> bool:
        """Reads the files again if they changed; whether they did. Files that do not fit together leave what stands."""
        with self._lock:
            try:
                stamp = self._look()
                if stamp == self._stamp:
                    return False
                pem = self._read()
            except StartupError as error:
                # An agent writes one file after the other: the next handshake looks again.
                logger.warning("certificate not renewed: %s", error)
                return False
            self._stamp, self.pem = stamp, pem
        logger.info("certificate renewed", extra={"expires": pem.expires})
        return True

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC in each handshake; None keeps what it has."""
        self.refresh()
        if self.pem is self._given:
            return None
        self._given = self.pem
        return self._given.grpc

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._files[1], self._files[0])
        context.sni_callback = self._hello
        return context

    def _hello(self, connection: ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:
        """Called by ssl in each handshake, with a server name or without, before a certificate is chosen."""
        self.refresh()
        if self.pem is not self._https[0]:
            try:
                self._https = (self.pem, self._context())
            except (OSError, StartupError) as error:  # the files were changed once more meanwhile
                logger.warning("certificate of the HTTP door not renewed: %s", error)
        connection.context = self._https[1]

    def _look(self) -> _Stamp:
        try:
            stats = [file.stat() for file in self._files]
        except OSError as error:
            raise StartupError(f"cannot read {error.filename}: {error.strerror}") from None
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)

    def _read(self) -> Pem:
        key, cert, *ca = (_bytes(file) for file in self._files)
        try:
            public = load_pem_private_key(key, password=None).public_key()
            fits = _encoded(public) == _encoded(x509.load_pem_x509_certificate(cert).public_key())
            for authorities in ca:
                x509.load_pem_x509_certificates(authorities)
        except (ValueError, TypeError):
            raise StartupError(
                f"one of {', '.join(map(str, self._files))} is not PEM as it should be"
            ) from None
        if not fits:
            raise StartupError(f"{self._files[0]} is not the key of {self._files[1]}")
        return Pem(cert, key, ca[0] if ca else None)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StartupError(f"cannot read {file}: {error.strerror}") from None


def _encoded(public: object) -> bytes:
    """A key's standard form, in which equal keys are equal."""
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]
