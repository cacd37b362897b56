"""OpenID Connect Discovery 1.0: finds where an issuer publishes its keys, so that a service only needs the issuer's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus

from servicekit.address import is_trustworthy
from servicekit.http_client import HttpClient, HttpError

_WELL_KNOWN = "/.well-known/openid-configuration"
_TIMEOUT_S = 5.0
_LARGEST_BYTES = 1 << 20


class DiscoveryFailed(ValueError):
    """The issuer's configuration cannot be trusted; the text says why."""


def key_source(issuer: str) -> Callable[[], str]:
    """Returns a function that returns the URL of the issuer's key set. It asks at each call: a provider may move the key set."""

    def ask() -> str:
        return jwks_uri(issuer, fetch(issuer.rstrip("/") + _WELL_KNOWN))

    return ask


def jwks_uri(issuer: str, document: bytes) -> str:
    """Returns the URL of the key set in an issuer's configuration.

    Raises:
        DiscoveryFailed: the document is not an OpenID configuration, is for another issuer (Discovery 1.0, 4.3), or names
            a URL at which a third party could replace the keys.
    """
    try:
        found = json.loads(document)
        stated, address = found["issuer"], found["jwks_uri"]
    except (ValueError, TypeError, KeyError):
        raise DiscoveryFailed(f"{issuer}{_WELL_KNOWN} is not an OpenID configuration") from None
    if stated != issuer:
        raise DiscoveryFailed(f"the configuration of {issuer} is for the issuer {stated!r}")
    if not isinstance(address, str) or not is_trustworthy(address):
        raise DiscoveryFailed(f"{issuer} publishes its keys at {address!r}: use https, or this machine")
    return address


_client = HttpClient(_TIMEOUT_S, _LARGEST_BYTES, environment=True)


def fetch(address: str) -> bytes:
    """Returns the body of the response at an http(s) URL. A redirect is an error: it could lead from https to http, or inward.

    Raises:
        OSError: there is no complete answer within `_TIMEOUT_S`, or its status is not 200.
    """
    answer = _client.exchange("GET", address)
    if answer.status != HTTPStatus.OK:
        raise HttpError(f"{address} answers {answer.status}")
    return answer.body
