"""Who may call which RPC, read from the options in the proto. An RPC that does not say does not start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from openledger.options.v1 import access_pb2

from servicekit.auth.roles import PERMISSIONS
from servicekit.errors import StartupError

# They tell nothing but that the server lives and what its protos say, and are asked before anyone has a token.
_PUBLIC_PACKAGES = ("grpc.health.v1", "grpc.reflection.v1alpha", "grpc.reflection.v1")


@dataclass(frozen=True)
class Rule:
    """The permission an RPC needs; none for a public one."""

    permission: str | None


def access_rules(services: Iterable[str]) -> Mapping[str, Rule]:
    """The rule of each method (``/package.Service/Method``) of the named services.

    Raises:
        StartupError: a service whose proto is not loaded, or a method without option or with an unknown permission.
    """
    rules: dict[str, Rule] = {}
    for name in services:
        for method in _describe(name).methods:
            rules[f"/{name}/{method.name}"] = rule_of(method)
    return rules


def rule_of(method: MethodDescriptor) -> Rule:
    """What a method's option says.

    Raises:
        StartupError: nothing, both, or a permission that no role could ever be given.
    """
    service = method.containing_service
    if service.file.package in _PUBLIC_PACKAGES:
        return Rule(None)
    option = method.GetOptions().Extensions[access_pb2.access]
    name = f"{service.full_name}/{method.name}"
    if option.public == bool(option.permission):
        raise StartupError(
            f"{name} must declare either a permission or public in openledger.options.v1.access"
        )
    if option.public:
        return Rule(None)
    if option.permission not in PERMISSIONS:
        raise StartupError(
            f"{name} needs the permission {option.permission!r}, which servicekit.auth.roles does not know"
        )
    return Rule(option.permission)


def _describe(service: str) -> ServiceDescriptor:
    try:
        return descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        raise StartupError(f"the proto of service {service} is not loaded") from None
