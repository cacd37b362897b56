"""Warnings about settings that an operator should not use by accident."""

from __future__ import annotations

from servicekit.settings import ServiceSettings


def warnings_of(settings: ServiceSettings) -> list[dict[str, str]]:
    """Returns warnings about insecure settings. Logged at every start, and in /readyz for `openledger doctor`."""
    found = []
    if settings.auth_mode == "development":
        folder = settings.state_dir / "issuer"
        found.append(
            (
                "development_issuer",
                f"DEVELOPMENT tokens: a process that can read {folder} can be any principal",
            )
        )
    if settings.tls_cert is None:
        host = settings.grpc_host
        found.append(("plain_text", f"INSECURE transport: plain text, so only for this machine ({host})"))
    for name in settings.unknown_variables():
        found.append(("unknown_variable", f"environment variable {name} names no setting"))
    return [{"kind": kind, "message": message} for kind, message in found]
