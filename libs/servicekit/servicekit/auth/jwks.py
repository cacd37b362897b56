"""The public keys that tokens are signed with, from a file or an http(s) URL, cached and renewed."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from servicekit.errors import Unauthenticated, Unavailable

# Symmetric algorithms must never be here: a public key, known to all, would pass as the shared secret.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA")

_TIMEOUT_S = 5.0
_LARGEST_BYTES = 1 << 20


class KeySet:
    """Signing keys by key id.

    Args:
        source: a file or an http(s) URL with a JSON Web Key Set (RFC 7517).
        max_age_s: keys are read again after this time, so that a withdrawn key stops working.
        min_interval_s: unknown key ids cause at most one read in this time, or anyone could make us hammer the issuer.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        source: str,
        max_age_s: float = 600.0,
        min_interval_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._max_age_s = max_age_s
        self._min_interval_s = min_interval_s
        self._clock = clock
        self._keys: dict[str, PyJWK] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._lock = threading.Lock()

    def key(self, key_id: str) -> PyJWK:
        """The key of that id.

        Raises:
            Unauthenticated: there is no such key.
            Unavailable: keys were never read and cannot be read now.
        """
        with self._lock:
            now = self._clock()
            stale = self._read_at is None or now - self._read_at > self._max_age_s
            may_read = self._tried_at is None or now - self._tried_at >= self._min_interval_s
            if (stale or key_id not in self._keys) and may_read:
                self._read(now)
            if self._read_at is None:
                raise Unavailable("SIGNING_KEYS_UNAVAILABLE", f"cannot read signing keys from {self._source}")
            if key_id not in self._keys:
                raise Unauthenticated(
                    "TOKEN_KEY_UNKNOWN", "the token is signed with a key its issuer does not publish"
                )
            return self._keys[key_id]

    def _read(self, now: float) -> None:
        """Replaces the keys; an issuer that does not answer leaves those that are cached in use."""
        self._tried_at = now
        try:
            entries = json.loads(_load(self._source))["keys"]
        except (OSError, ValueError, TypeError, KeyError):
            return
        keys = [key for key in map(_parse, entries) if key is not None]
        self._keys = {str(key.key_id): key for key in keys}
        self._read_at = now


def _parse(entry: dict[str, object]) -> PyJWK | None:
    """One published key; none where it has no id or a form we do not accept. Others in the set still count."""
    try:
        key = PyJWK(entry)
    except PyJWTError:
        return None
    return key if key.key_id and key.algorithm_name in ALGORITHMS else None


def _load(source: str) -> bytes:
    if source.startswith(("http://", "https://")):
        with urllib.request.urlopen(source, timeout=_TIMEOUT_S) as response:
            body: bytes = response.read(_LARGEST_BYTES)
            return body
    return Path(source.removeprefix("file://")).read_bytes()
