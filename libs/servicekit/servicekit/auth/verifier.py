"""Verification of tokens: returns the principal, or raises with the reason of the refusal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jwt

from servicekit.auth.claims import MalformedRoles, Shape, roles_in
from servicekit.auth.jwks import ALGORITHMS, KeySet
from servicekit.auth.principal import Principal
from servicekit.auth.verified import VerifiedTokens
from servicekit.errors import Unauthenticated

_LEEWAY_S = 30
_LONGEST_TOKEN = 16_384
_LONGEST_NAME = 256

# Most specific first: PyJWT's errors form a tree.
_REASONS: tuple[tuple[type[Exception], str, str], ...] = (
    (jwt.ExpiredSignatureError, "TOKEN_EXPIRED", "the token has expired"),
    (jwt.ImmatureSignatureError, "TOKEN_NOT_YET_VALID", "the token is not valid yet"),
    (jwt.InvalidAudienceError, "TOKEN_AUDIENCE", "the token is for another audience"),
    (jwt.InvalidIssuerError, "TOKEN_ISSUER", "the token is from another issuer"),
    (jwt.MissingRequiredClaimError, "TOKEN_INCOMPLETE", "the token lacks a required claim"),
    (jwt.InvalidSignatureError, "TOKEN_SIGNATURE", "the token's signature is wrong"),
    (jwt.InvalidAlgorithmError, "TOKEN_ALGORITHM", "the token's algorithm is not accepted"),
)


class TokenVerifier:
    """Verifies JWTs against an issuer's keys.

    Args:
        keys: the issuer's public keys.
        issuer: required ``iss``.
        audience: required ``aud``.
        roles_claim: the claim that holds the roles, by its whole name or as a path with dots (see `servicekit.auth.claims`).
        roles_shape: the one form that the claim may have.
    """

    def __init__(
        self,
        keys: KeySet,
        issuer: str,
        audience: str,
        roles_claim: str = "roles",
        roles_shape: Shape = "names",
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._roles_claim = roles_claim
        self._roles_shape = roles_shape
        self._verified = VerifiedTokens()

    def known(self, token: str) -> Principal | None:
        """Returns the principal of a token that was verified before, if verifying it again would give the same; never waits."""
        return self._verified.find(token, self._keys.reading)

    def verify(self, token: str) -> Principal:
        """Returns the principal that the token names.

        Raises:
            Unauthenticated: the token is malformed, unsigned, forged, expired or for another audience; the reason says which.
            Unavailable: the issuer's keys cannot be read.
        """
        if len(token) > _LONGEST_TOKEN:
            raise Unauthenticated("TOKEN_MALFORMED", "the token is too long")
        reading = self._keys.reading
        try:
            key = self._keys.key(str(jwt.get_unverified_header(token).get("kid", "")))
            claims = jwt.decode(
                token,
                key,
                # The key determines the algorithm; the algorithm in the token's header is ignored.
                algorithms=[key.algorithm_name] if key.algorithm_name in ALGORITHMS else [],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise _explain(error) from None
        except (OverflowError, ValueError, TypeError):  # a time that is no number of seconds
            raise Unauthenticated("TOKEN_MALFORMED", "the token has a claim of a wrong form") from None
        name = _subject(claims)
        expires = _expiry(claims)
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise Unauthenticated("TOKEN_INCOMPLETE", "the token names no principal")
        try:
            principal = Principal(name, roles_in(claims, self._roles_claim, self._roles_shape))
        except MalformedRoles as error:
            raise Unauthenticated("TOKEN_ROLES", f"the token is refused: {error}") from None
        self._verified.remember(token, principal, reading, expires=expires + _LEEWAY_S)
        return principal


def _subject(claims: Mapping[str, Any]) -> str:
    """Returns the exact text of `sub`: rights belong to it, so no other form is converted to it."""
    if not isinstance(claims["sub"], str):
        raise Unauthenticated("TOKEN_INCOMPLETE", "the token names no principal")
    return claims["sub"]


def _expiry(claims: Mapping[str, Any]) -> float:
    expires = claims["exp"]
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not math.isfinite(expires):
        raise Unauthenticated("TOKEN_MALFORMED", "the token's exp is not a number of seconds")
    return float(expires)


def _explain(error: jwt.PyJWTError) -> Unauthenticated:
    for kind, reason, message in _REASONS:
        if isinstance(error, kind):
            return Unauthenticated(reason, message)
    return Unauthenticated("TOKEN_MALFORMED", "the token is not a valid JWT")
