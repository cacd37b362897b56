"""Access rules. An RPC declares its rule in its proto, an HTTP route in its definition; without a rule it is not served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from openledger.options.v1 import access_pb2

from servicekit.auth.roles import PERMISSIONS
from servicekit.errors import StartupError

_HEALTH = "grpc.health.v1"  # reveals only that the server runs; balancers ask without a token
_REFLECTION = ("grpc.reflection.v1alpha", "grpc.reflection.v1")

ANY_PERMISSION = ""
"""Every authenticated caller may call the method."""

MAX_PUBLIC_REQUEST_BYTES = 4 << 10
"""Largest request of health and reflection, which names a service or a file."""


@dataclass(frozen=True)
class Rule:
    """The permission that a call needs; None for a public method."""

    permission: str | None
    max_request_bytes: int | None = None
    """Largest message of a request; None: the limit of all methods."""


def declared(name: str, permission: str | None, public: bool) -> Rule:
    """Returns the rule that an RPC or a route declares.

    Raises:
        StartupError: it declares neither a permission nor public, or both, or an unknown permission.
    """
    if public == bool(permission):
        raise StartupError(
            f"{name} must declare either a permission or public in openledger.options.v1.access"
        )
    if public or permission is None:
        return Rule(None)
    if permission not in PERMISSIONS:
        raise StartupError(
            f"{name} needs the permission {permission!r}, which servicekit.auth.roles does not know"
        )
    return Rule(permission)


def access_rules(services: Iterable[str], *, public_reflection: bool = False) -> Mapping[str, Rule]:
    """Returns the rule of each method (``/package.Service/Method``) of the named gRPC services.

    With `public_reflection`, gRPC reflection needs no token.

    Raises:
        StartupError: the proto of a service is not loaded, or a method does not declare who may call it.
    """
    rules: dict[str, Rule] = {}
    for name in services:
        for method in _describe(name).methods:
            rules[f"/{name}/{method.name}"] = rule_of(method, public_reflection=public_reflection)
    return rules


def rule_of(method: MethodDescriptor, *, public_reflection: bool = False) -> Rule:
    """Returns what the option ``openledger.options.v1.access`` of a method declares. Raises as `declared`."""
    service = method.containing_service
    if service.file.package == _HEALTH:
        return Rule(None, MAX_PUBLIC_REQUEST_BYTES)
    if service.file.package in _REFLECTION:
        return Rule(None if public_reflection else ANY_PERMISSION, MAX_PUBLIC_REQUEST_BYTES)
    option = method.GetOptions().Extensions[access_pb2.access]
    rule = declared(f"{service.full_name}/{method.name}", option.permission, option.public)
    return rule if rule.permission is not None else Rule(None, MAX_PUBLIC_REQUEST_BYTES)


def _describe(service: str) -> ServiceDescriptor:
    try:
        return descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        raise StartupError(f"the proto of service {service} is not loaded") from None
