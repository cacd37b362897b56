"""Where an issuer publishes its keys: OpenID Connect Discovery 1.0, so that an issuer's name is all one has to be told."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable

from servicekit.address import is_trustworthy

_WELL_KNOWN = "/.well-known/openid-configuration"
_TIMEOUT_S = 5.0
_LARGEST_BYTES = 1 << 20


class DiscoveryFailed(ValueError):
    """The issuer's configuration cannot be believed; the text says why."""


def key_source(issuer: str) -> Callable[[], str]:
    """Asked at each reading of keys, gives the address of the issuer's key set: a provider may move it."""

    def ask() -> str:
        return jwks_uri(issuer, fetch(issuer.rstrip("/") + _WELL_KNOWN))

    return ask


def jwks_uri(issuer: str, document: bytes) -> str:
    """The address of the key set in an issuer's configuration.

    Raises:
        DiscoveryFailed: it is no such document, speaks for another issuer (Discovery 1.0, 4.3), or sends us to an address
            where anyone between could put keys of their own.
    """
    try:
        found = json.loads(document)
        stated, address = found["issuer"], found["jwks_uri"]
    except (ValueError, TypeError, KeyError):
        raise DiscoveryFailed(f"{issuer}{_WELL_KNOWN} is no OpenID configuration") from None
    if stated != issuer:
        raise DiscoveryFailed(f"the configuration of {issuer} speaks for {stated!r}")
    if not isinstance(address, str) or not is_trustworthy(address):
        raise DiscoveryFailed(f"{issuer} publishes its keys at {address!r}, which is neither https nor here")
    return address


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead from https to http, or to an address inside our network."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def fetch(address: str) -> bytes:
    """The body behind an http(s) address. Raises OSError, which urllib's errors are."""
    with _opener.open(address, timeout=_TIMEOUT_S) as response:
        body: bytes = response.read(_LARGEST_BYTES)
        return body
