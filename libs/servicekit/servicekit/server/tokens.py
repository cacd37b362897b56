"""A service's own token, for its calls to other services."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from servicekit.auth import DevelopmentIssuer
from servicekit.errors import Unavailable

_TTL_S = 3600
_RENEW_S = 600


class TokenSource:
    """Called, gives a token that is valid for some time yet; fits `servicekit.client.channel`.

    In development it is minted, with the role ``service``. Otherwise a file holds it, which the platform renews (a
    projected service account token, an agent of the OIDC provider), so it is read at each use.
    """

    def __init__(self, service: str, issuer: DevelopmentIssuer | None, file: Path | None) -> None:
        self._service = service
        self._issuer = issuer
        self._file = file
        self._minted: tuple[str, float] | None = None
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """The present token.

        Raises:
            Unavailable: there is no file, or it cannot be read.
        """
        if self._issuer is not None:
            return self._mint(self._issuer)
        if self._file is None:
            raise Unavailable(
                "NO_SERVICE_TOKEN", "OPENLEDGER_TOKEN_FILE is not set, so this service has no token"
            )
        try:
            return self._file.read_text().strip()
        except OSError as error:
            raise Unavailable("NO_SERVICE_TOKEN", f"cannot read {self._file}: {error.strerror}") from None

    def _mint(self, issuer: DevelopmentIssuer) -> str:
        with self._lock:
            if self._minted is None or self._minted[1] - time.monotonic() < _RENEW_S:
                token = issuer.mint(f"services/{self._service}", ["service"], _TTL_S)
                self._minted = (token, time.monotonic() + _TTL_S)
            return self._minted[0]
