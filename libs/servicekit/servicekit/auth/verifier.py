"""A token becomes a principal, or a reason why not."""

from __future__ import annotations

import jwt

from servicekit.auth.claims import roles_in
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
        roles_claim: where roles stand: a claim by its whole name, or else dots descend (see `servicekit.auth.claims`).
    """

    def __init__(self, keys: KeySet, issuer: str, audience: str, roles_claim: str = "roles") -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._roles_claim = roles_claim
        self._verified = VerifiedTokens()

    def known(self, token: str) -> Principal | None:
        """The principal of a token that was verified before, when verifying it again would say the same; never waits."""
        return self._verified.find(token, self._keys.reading)

    def verify(self, token: str) -> Principal:
        """The principal that the token names.

        Raises:
            Unauthenticated: it is malformed, unsigned, forged, too old or for another; the reason says which.
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
                # The key says how it signs; the token's own header is never asked.
                algorithms=[key.algorithm_name] if key.algorithm_name in ALGORITHMS else [],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise _explain(error) from None
        name = str(claims["sub"])
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise Unauthenticated("TOKEN_INCOMPLETE", "the token names no principal")
        principal = Principal(name, roles_in(claims, self._roles_claim))
        self._verified.remember(token, principal, reading, until=float(claims["exp"]) + _LEEWAY_S)
        return principal


def _explain(error: jwt.PyJWTError) -> Unauthenticated:
    for kind, reason, message in _REASONS:
        if isinstance(error, kind):
            return Unauthenticated(reason, message)
    return Unauthenticated("TOKEN_MALFORMED", "the token is not a valid JWT")
