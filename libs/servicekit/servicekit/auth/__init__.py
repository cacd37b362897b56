"""Authentication and authorization of callers.

A bearer token (JWT) names a principal and its roles. Roles grant permissions. The proto file of an RPC declares which
permission the RPC needs.
"""

from servicekit.auth.issuer import DevelopmentIssuer
from servicekit.auth.jwks import KeySet
from servicekit.auth.principal import Principal, current_principal, set_current_principal
from servicekit.auth.roles import PERMISSIONS, ROLE_PERMISSIONS
from servicekit.auth.verifier import TokenVerifier

__all__ = [
    "PERMISSIONS",
    "ROLE_PERMISSIONS",
    "DevelopmentIssuer",
    "KeySet",
    "Principal",
    "TokenVerifier",
    "current_principal",
    "set_current_principal",
]
