"""Bearer tokens of calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openledger_client.errors import ConfigurationError

Token = str | Callable[[], str] | None
"""A token, or a function that returns the current one: a channel outlives a token. None sends no token."""


@dataclass(frozen=True)
class TokenFile:
    """Reads the token from a file at each call, because an agent or Kubernetes renews it there."""

    path: Path

    def __call__(self) -> str:
        """Returns the current token.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        try:
            return self.path.read_text().strip()
        except OSError as error:
            raise ConfigurationError(
                f"cannot read the token file {self.path}: {error.strerror}", reason="NO_TOKEN"
            ) from None


def token_from_environment() -> Token:
    """Returns `OPENLEDGER_TOKEN`, else the file `OPENLEDGER_TOKEN_FILE`, else None."""
    if token := os.environ.get("OPENLEDGER_TOKEN"):
        return token
    if file := os.environ.get("OPENLEDGER_TOKEN_FILE"):
        return TokenFile(Path(file))
    return None
