"""Encrypted channels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import grpc

from openledger_client.errors import ConfigurationError


@dataclass(frozen=True)
class Tls:
    """PEM files of an encrypted channel: the authorities to trust and, for mTLS, the client's certificate and key.

    A channel checks the files before each call. Calls that begin after a change use a new connection with the new
    files; running calls keep theirs.
    """

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    @classmethod
    def from_environment(cls) -> Tls | None:
        """Returns the files named by `OPENLEDGER_TLS_CA`, `OPENLEDGER_TLS_CERT` and `OPENLEDGER_TLS_KEY`.

        None, which means plain text, without the first.
        """
        ca, cert, key = (os.environ.get(f"OPENLEDGER_TLS_{name}") for name in ("CA", "CERT", "KEY"))
        if not ca:
            return None
        return cls(Path(ca), Path(cert) if cert else None, Path(key) if key else None)

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns gRPC's form of the files' current content.

        Raises:
            ConfigurationError: a file cannot be read.
        """
        try:
            ca, cert, key = (None if p is None else p.read_bytes() for p in (self.ca, self.cert, self.key))
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {error.filename}: {error.strerror}", reason="NO_CERTIFICATE"
            ) from None
        return grpc.ssl_channel_credentials(ca, key, cert)

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Returns a value that differs after a file changed. Raises OSError."""
        stats = [file.stat() for file in (self.ca, self.cert, self.key) if file is not None]
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)
