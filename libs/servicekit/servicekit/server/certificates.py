"""The server's certificate, key and client authorities: read from files, and read again when the files change.

Certificates are valid for days or hours. An agent (cert-manager, SPIFFE) renews them and writes new files. A new connection
uses the current files. An open connection keeps its certificate until it reaches its maximum age.
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
    """The contents of the files at one time."""

    cert: bytes
    key: bytes
    client_ca: bytes | None

    @property
    def grpc(self) -> grpc.ServerCertificateConfiguration:
        """The same as a gRPC configuration."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.cert)], self.client_ca)

    @property
    def expires(self) -> str:
        """When the certificate expires, as text."""
        return x509.load_pem_x509_certificate(self.cert).not_valid_after_utc.isoformat()


class Certificates:
    """Watches the files of one server. A check takes three stat calls, once per handshake.

    Raises:
        StartupError: a file cannot be read, is not PEM, or the key does not belong to the certificate.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._files = (key, cert) if client_ca is None else (key, cert, client_ca)
        self._lock = threading.Lock()
        self._stamp = self._stamps()
        self.pem = self._read()
        self._given = self.pem
        self._https = (self.pem, self._context())

    def credentials(self) -> grpc.ServerCredentials:
        """Returns gRPC credentials. With client authorities, every client must present a certificate (mTLS)."""
        return grpc.dynamic_ssl_server_credentials(
            self._given.grpc,
            self._changed,  # type: ignore[arg-type] # None is allowed, the stubs do not say so
            require_client_authentication=self._given.client_ca is not None,
        )

    def https(self) -> ssl.SSLContext:
        """Returns the context of the HTTP server, whose clients send tokens instead of certificates."""
        return self._https[1]

    def refresh(self) -> bool:
        """Reads the files again if they changed, and returns whether they did. Ignores files that do not match each other."""
        with self._lock:
            try:
                stamp = self._stamps()
                if stamp == self._stamp:
                    return False
                pem = self._read()
            except StartupError as error:
                # An agent writes one file after the other: the next handshake reads them again.
                logger.warning("certificate not renewed: %s", error)
                return False
            self._stamp, self.pem = stamp, pem
        logger.info("certificate renewed", extra={"expires": pem.expires})
        return True

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns a new configuration, or None when nothing changed. gRPC calls it in each handshake."""
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
        """Sets the current context. ssl calls it in each handshake, before it chooses a certificate."""
        self.refresh()
        if self.pem is not self._https[0]:
            try:
                self._https = (self.pem, self._context())
            except (OSError, StartupError) as error:  # the files changed once more meanwhile
                logger.warning("certificate of the HTTP server not renewed: %s", error)
        connection.context = self._https[1]

    def _stamps(self) -> _Stamp:
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
            raise StartupError(f"one of {', '.join(map(str, self._files))} is not valid PEM") from None
        if not fits:
            raise StartupError(f"{self._files[0]} is not the key of {self._files[1]}")
        return Pem(cert, key, ca[0] if ca else None)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StartupError(f"cannot read {file}: {error.strerror}") from None


def _encoded(public: object) -> bytes:
    """Returns a key's standard encoding, which is equal for equal keys."""
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]
