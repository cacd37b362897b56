"""A token issuer for development: a key pair in a folder. A process that can read that folder can be every principal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import OKPAlgorithm

from servicekit import private
from servicekit.auth.roles import ROLE_PERMISSIONS
from servicekit.deadlines import lock_file
from servicekit.errors import InvalidArgument, StartupError
from servicekit.files import write_whole

DEVELOPMENT_ISSUER = "openledger-development"
_LONGEST_TTL_S = 30 * 24 * 3600


class DevelopmentIssuer:
    """Signs tokens for services that run with ``OPENLEDGER_AUTH_MODE=development`` on the same state folder."""

    def __init__(self, state_dir: Path, audience: str = "openledger") -> None:
        self._folder = state_dir / "issuer"
        self._private = self._folder / "private.pem"
        self._public = self._folder / "jwks.json"
        self._audience = audience

    def ensure_keys(self) -> None:
        """Creates the key pair unless it exists. Safe when several processes call it at once; both files appear complete.

        Raises:
            StartupError: the folder cannot be written.
        """
        try:
            private.folder(self._folder)
            with private.file(self._folder / ".lock").open("w") as lock:
                lock_file(lock)
                if not self._private.exists():
                    pem = Ed25519PrivateKey.generate().private_bytes(
                        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
                    )
                    write_whole(self._private, pem)
                # Derived from the private key: a process that finds only the first file writes the second.
                if not self._public.exists():
                    write_whole(self._public, json.dumps(self._key_set(), indent=2).encode())
        except OSError as error:
            raise StartupError(
                f"cannot write the development issuer's keys in {self._folder}: {error.strerror}"
            ) from None

    def mint(self, principal: str, roles: Iterable[str], ttl_s: float = 3600) -> str:
        """Returns a token for a principal.

        Raises:
            InvalidArgument: an unknown role, an empty name, or a time to live beyond 30 days.
        """
        given = sorted(set(roles))
        unknown = [role for role in given if role not in ROLE_PERMISSIONS]
        if unknown:
            allowed = ", ".join(ROLE_PERMISSIONS)
            raise InvalidArgument(
                "roles", "role.known", f"unknown role {unknown[0]!r}; roles are {allowed}", unknown[0]
            )
        if not principal:
            raise InvalidArgument("principal", "string.min_len", "must not be empty")
        if not 0 < ttl_s <= _LONGEST_TTL_S:
            raise InvalidArgument("ttl_s", "range", f"must be above 0 and at most {_LONGEST_TTL_S}", ttl_s)
        self.ensure_keys()
        now = int(time.time())
        claims = {
            "iss": DEVELOPMENT_ISSUER,
            "aud": self._audience,
            "sub": principal,
            "roles": given,
            "iat": now,
            "nbf": now,
            "exp": now + int(max(ttl_s, 1)),
            "jti": uuid4().hex,
        }
        return jwt.encode(claims, self._key(), algorithm="EdDSA", headers={"kid": self._key_id()})

    def _key(self) -> Ed25519PrivateKey:
        key = load_pem_private_key(self._private.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise StartupError(f"{self._private} is not an Ed25519 key")
        return key

    def _key_set(self) -> dict[str, object]:
        public = OKPAlgorithm.to_jwk(self._key().public_key(), as_dict=True)
        return {"keys": [{**public, "kid": self._key_id(), "use": "sig", "alg": "EdDSA"}]}

    def _key_id(self) -> str:
        """Returns the hash of the public key (RFC 7638), so that no other key has the same id."""
        public = OKPAlgorithm.to_jwk(self._key().public_key(), as_dict=True)
        required = {name: public[name] for name in ("crv", "kty", "x")}
        return sha256(json.dumps(required, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]
