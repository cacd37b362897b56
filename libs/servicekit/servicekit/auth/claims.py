"""Roles in a token, in each of the forms that providers give them.

A list of names (Entra ID ``roles``, Okta and Cognito ``groups``, Keycloak below ``realm_access.roles``), one text with
spaces between names (OAuth's ``scope``, RFC 8693), or an object whose keys are the names (Zitadel). Claims may be named by
a URL with dots in it (Auth0), so a claim of the whole name is looked for before the name is taken apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def roles_in(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """The roles at a claim; none where it is missing or of another form: what is not understood grants nothing."""
    value = claims.get(name)
    if value is None:
        value = claims
        for step in name.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, Mapping | list):
        return frozenset(role for role in value if isinstance(role, str))
    return frozenset()
