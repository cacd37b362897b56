"""A service's own token, for its calls to other services."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from servicekit.auth.development_token import DevelopmentToken
from servicekit.errors import Unavailable
from servicekit.settings import ServiceSettings


class FileToken:
    """Returns the token in a file. The platform renews it (a projected service account token, an agent of the OIDC provider),
    so the file is read at each call."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def __call__(self) -> str:
        """Returns the current token.

        Raises:
            Unavailable: there is no file, or it cannot be read.
        """
        if self._file is None:
            raise Unavailable(
                "NO_SERVICE_TOKEN", "OPENLEDGER_TOKEN_FILE is not set, so this service has no token"
            )
        try:
            return self._file.read_text().strip()
        except OSError as error:
            raise Unavailable("NO_SERVICE_TOKEN", f"cannot read {self._file}: {error.strerror}") from None


def service_token(service: str, settings: ServiceSettings) -> Callable[[], str]:
    """Returns the source of a service's token: the development issuer, or a file."""
    if settings.auth_mode == "development":
        return DevelopmentToken(
            settings.state_dir, f"services/{service}", ["service"], audience=settings.auth_audience
        )
    return FileToken(settings.token_file)
