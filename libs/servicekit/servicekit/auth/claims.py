"""The roles in a token, in exactly the forms that providers use.

By default (the shape ``names``) a claim is a list of names (Entra ID ``roles``, Okta and Cognito ``groups``, Keycloak below
``realm_access.roles``) or one text with spaces between names (OAuth's ``scope``, RFC 8693). An operator whose provider is Zitadel
sets the shape ``zitadel``: then a claim is an object in which each name leads to the organisations that granted it,
``{"admin": {"<organisation id>": "<domain>"}}``, and nothing else. A role counts whichever organisation granted it. Any other
form is refused and never interpreted: the keys of ``{"admin": false}`` are no roles.

A claim's name may be a URL that contains dots (Auth0), so a claim with the whole name is looked up before the name is split at
its dots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Shape = Literal["names", "zitadel"]
"""The form that the claim has at the operator's provider."""


class MalformedRoles(ValueError):
    """The claim of the roles has a form that no provider uses; the text says which."""


def roles_in(claims: Mapping[str, Any], name: str, shape: Shape = "names") -> frozenset[str]:
    """Returns the roles in a claim of that shape; an empty set when the claim is missing, so that it grants nothing.

    Raises MalformedRoles.
    """
    value = claims.get(name)
    if value is None:
        value = _below(claims, name)
    if value is None:
        return frozenset()
    if shape == "zitadel":
        if isinstance(value, Mapping) and all(map(_is_grant, value.values())):
            return frozenset(value)
        raise MalformedRoles(
            f"its claim {name!r} must be an object that maps each role to the organisations that granted it,"
            " because auth_roles_shape is zitadel"
        )
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, list) and all(isinstance(role, str) for role in value):
        return frozenset(value)
    raise MalformedRoles(
        f"its claim {name!r} must be a list of role names, or one text with spaces between them"
    )


def _below(claims: Mapping[str, Any], name: str) -> Any:
    """Returns what a path with dots leads to; None where a step is missing. Raises MalformedRoles."""
    value: Any = claims
    for step in name.split("."):
        if not isinstance(value, Mapping):
            raise MalformedRoles(f"its claim {name!r} leads through something that is not an object")
        value = value.get(step)
        if value is None:
            return None
    return value


def _is_grant(value: object) -> bool:
    """Returns whether a value is a non-empty object of texts: organisation id to domain."""
    return (
        isinstance(value, Mapping) and bool(value) and all(isinstance(each, str) for each in value.values())
    )
