"""The public keys that tokens are signed with, from a file or an http(s) URL, cached and renewed."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from servicekit.auth.discovery import fetch
from servicekit.errors import Unauthenticated, Unavailable
from servicekit.heartbeats import Heartbeat

logger = logging.getLogger(__name__)

# Never add symmetric algorithms: the public key would then be accepted as the shared secret.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


_READ_S = 12.0
"""Longest that a caller waits for another caller's read: of the issuer's configuration and its keys, 5 s each."""


class KeySet:
    """Signing keys by key id.

    Args:
        source: a file or an http(s) URL with a JSON Web Key Set (RFC 7517), or a function that returns one at each reading.
        max_age_s: keys are read again after this time, so that a withdrawn key stops working.
        max_stale_s: how long keys stay in use while the issuer does not answer; after that no token is accepted.
        min_interval_s: unknown key ids cause at most one read in this time, so that no caller can make us flood the issuer.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        source: str | Callable[[], str],
        max_age_s: float = 600.0,
        max_stale_s: float = 24 * 3600.0,
        min_interval_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._max_age_s = max_age_s
        self._max_stale_s = max_stale_s
        self._min_interval_s = min_interval_s
        self._clock = clock
        self._keys: dict[str, PyJWK] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._reading = threading.Lock()
        self._readings = 0
        self._heartbeat = Heartbeat("signing keys", recheck=self.read_again)

    @property
    def reading(self) -> int | None:
        """Returns the number of the read that the current keys come from; None when the keys must be read again.

        While this number stays the same, verifying a token again gives the same result.
        """
        return self._readings if self._age_s() <= self._max_age_s else None

    def key(self, key_id: str) -> PyJWK:
        """Returns the key with this id.

        Raises:
            Unauthenticated: there is no such key.
            Unavailable: keys were never read, or too long ago, and cannot be read now.
        """
        known = key_id in self._keys and self._age_s() <= self._max_stale_s
        if not known or self._age_s() > self._max_age_s:
            # One caller at a time waits for the issuer; the others use the known keys, so a slow issuer does not block
            # them.
            self._renew(key_id, wait=not known)
        if self._age_s() > self._max_stale_s:
            raise Unavailable(
                "SIGNING_KEYS_UNAVAILABLE", "cannot read the issuer's signing keys", retry_after_s=5
            )
        try:
            return self._keys[key_id]
        except KeyError:
            raise Unauthenticated(
                "TOKEN_KEY_UNKNOWN", "the token is signed with a key its issuer does not publish"
            ) from None

    def read_again(self) -> None:
        """Reads the keys now, unless a caller does."""
        if self._reading.acquire(blocking=False):
            try:
                self._read()
            finally:
                self._reading.release()

    def _age_s(self) -> float:
        read_at = self._read_at
        return float("inf") if read_at is None else self._clock() - read_at

    def _renew(self, key_id: str, wait: bool) -> None:
        if not self._reading.acquire(timeout=_READ_S if wait else 0.0):
            return
        try:
            due = (
                key_id not in self._keys or self._age_s() > self._max_age_s
            )  # another thread may have read them
            recent = self._tried_at is not None and self._clock() - self._tried_at < self._min_interval_s
            if due and not recent:
                self._read()
        finally:
            self._reading.release()

    def _read(self) -> None:
        """Replaces the keys. While the issuer does not answer, the cached keys stay in use."""
        try:
            source = self._source() if callable(self._source) else self._source
            entries = json.loads(_load(source))["keys"]
            keys = [key for key in map(_parse, entries) if key is not None]
        except (OSError, ValueError, TypeError, KeyError) as error:
            self._heartbeat.failed(error)
            logger.warning("cannot read signing keys: %s", error, extra={"age_s": self._age_s()})
        else:
            self._keys = {str(key.key_id): key for key in keys}
            self._readings += 1  # after the keys: a token verified meanwhile counts for the previous read and is verified again
            self._read_at = self._clock()
            self._heartbeat.succeeded()
        finally:
            self._tried_at = self._clock()


def _parse(entry: dict[str, object]) -> PyJWK | None:
    """Returns one published key; None when it has no id or a form that is not accepted. The other keys stay valid."""
    try:
        key = PyJWK(entry)
    except PyJWTError:
        return None
    return key if key.key_id and key.algorithm_name in ALGORITHMS and entry.get("use") != "enc" else None


def _load(source: str) -> bytes:
    if source.startswith(("http://", "https://")):
        return fetch(source)
    return Path(source.removeprefix("file://")).read_bytes()
