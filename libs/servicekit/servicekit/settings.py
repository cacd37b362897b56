"""What every service can be told, where it is read from, and what is refused.

A setting is read, first match wins, from keyword arguments, from ``OPENLEDGER_<SERVICE>_<FIELD>`` (this service only) and,
for the fields that stand here, from ``OPENLEDGER_<FIELD>`` (all services of a machine). So ``OPENLEDGER_STATE_DIR`` moves
everything and ``OPENLEDGER_DATANET_GRPC_PORT`` only one port.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from servicekit.address import LOOPBACK, is_trustworthy
from servicekit.errors import StartupError

_PREFIX = "OPENLEDGER_"


class ServiceSettings(BaseSettings):
    """The settings all services share; a service subclasses it, names itself in ``service`` and adds its own.

    URLs that are left empty are derived from ``state_dir`` and are set once the object is built. ``load()`` is the door
    for programs: it raises `StartupError` with one line. The constructor raises pydantic's ValidationError.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True, validate_default=True)

    service: ClassVar[str] = "service"
    """The service's name as in its package: ``datanet``, ``chain_relay``."""

    state_dir: Path = Field(
        default=Path(".openledger"), description="Folder below which everything local lives."
    )
    grpc_host: str = Field(
        default="127.0.0.1", description="Address the gRPC, metrics and HTTP doors bind to."
    )
    grpc_port: int = Field(
        default=0, ge=0, le=65535, description="gRPC port; 0 picks a free one (see the address file)."
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Port of /metrics, /healthz and /readyz; 0 picks a free one."
    )
    database_url: str = Field(
        default="", description="SQLAlchemy URL; default sqlite:///<state_dir>/<service>/<service>.db."
    )
    event_log: str = Field(
        default="",
        description="kafka://host:port[,host:port] or embedded:<path>; default embedded:<state_dir>/events.db.",
    )
    object_store: str = Field(
        default="", description="Folder or s3://bucket/prefix; default <state_dir>/objects."
    )

    auth_mode: Literal["oidc", "development"] = Field(
        default="oidc",
        description="Who signs tokens: an OIDC provider, or the local development issuer, which must be asked for.",
    )
    auth_issuer: str = Field(
        default="",
        description="Required `iss` of tokens, the provider's https URL; in development openledger-development.",
    )
    auth_audience: str = Field(default="openledger", min_length=1, description="Required `aud` of tokens.")
    auth_jwks: str = Field(
        default="",
        description="Signing keys: file or https URL; default: where the issuer's /.well-known/openid-configuration says.",
    )
    auth_keys_max_age_s: float = Field(
        default=600.0,
        gt=0,
        description="Age at which signing keys are read again: so long does a withdrawn key work on.",
    )
    auth_roles_claim: str = Field(
        default="roles",
        min_length=1,
        description="Claim of roles: a list, a text with spaces or an object's keys; dots descend (realm_access.roles).",
    )

    token_file: Path | None = Field(
        default=None,
        description="File with the service's own token, renewed by others; in development it is minted.",
    )

    tls_cert: Path | None = Field(default=None, description="PEM certificate chain of the gRPC server.")
    tls_key: Path | None = Field(default=None, description="PEM private key of tls_cert.")
    tls_client_ca: Path | None = Field(
        default=None, description="PEM authorities; set, every client must show a certificate (mTLS)."
    )
    insecure_transport: bool = Field(
        default=False,
        description="Serve plain text, on a loopback address only. auth_mode=development implies it where tls_cert is unset.",
    )

    rate_per_s: float = Field(
        default=200.0,
        gt=0,
        description="Calls a second that one principal may make of one process, for ever.",
    )
    rate_burst: int = Field(default=1000, ge=1, description="Calls it may make at once after a time of rest.")
    max_running_calls: int = Field(
        default=256, ge=1, description="Calls and streams that one principal may have open at a process."
    )
    max_concurrent_streams: int = Field(
        default=256, ge=1, description="Calls that one connection may have open; more wait at the client."
    )
    request_id_ttl_s: float = Field(
        default=7 * 24 * 3600.0,
        ge=60,
        description="Time for which a request_id is kept: a repeat within it answers what the first call made.",
    )
    default_deadline_s: float = Field(
        default=30.0, gt=0, description="Deadline of a unary call whose client gave none."
    )
    max_deadline_s: float = Field(default=300.0, gt=0, description="Longest deadline a unary call may have.")
    max_connection_age_s: float = Field(
        default=3600.0,
        gt=0,
        description="Age at which a connection is asked to reconnect, so that load rebalances.",
    )
    max_connection_age_grace_s: float = Field(
        default=600.0, gt=0, description="Time its running calls then have."
    )
    grace_s: float = Field(default=10.0, ge=0, description="Time running calls have when the service stops.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe level that is logged."
    )
    log_format: Literal["json", "text"] = Field(
        default="json", description="json for machines, text for people."
    )
    otlp_endpoint: str | None = Field(
        default=None, description="Where traces go by OTLP/gRPC, http://host:4317; none keeps them."
    )
    consumer_workers: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Threads that handle a group's events, each partition by one at a time; 0: 4 on PostgreSQL, 1 on SQLite,"
        " which has one writer at a time.",
    )
    trace_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Part of the traces beginning here that is recorded; others follow what their caller decided.",
    )

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Settings from ``overrides`` and the environment.

        Raises:
            StartupError: one line that names each bad setting, its value and what is allowed.
        """
        try:
            return cls(**overrides)
        except ValidationError as error:
            raise StartupError(
                "bad settings: " + "; ".join(cls._describe(dict(e)) for e in error.errors())
            ) from None

    @classmethod
    def unknown_variables(cls) -> list[str]:
        """Environment variables with this service's own prefix that name no setting: typing errors, most likely."""
        prefix = cls._own_prefix()
        names = (name for name in os.environ if name.upper().startswith(prefix))
        return sorted(
            name for name in names if name.upper().removeprefix(prefix).lower() not in cls.model_fields
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keyword arguments, then this service's variables, then the machine's."""
        own = EnvSettingsSource(settings_cls, env_prefix=cls._own_prefix())
        return init_settings, own, _SharedVariables(settings_cls, env_prefix=_PREFIX)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Derives what was left empty and refuses combinations that cannot work."""
        development = self.auth_mode == "development"
        derived = {
            "database_url": f"sqlite:///{self.state_dir / self.service / self.service}.db",
            "event_log": f"embedded:{self.state_dir / 'events.db'}",
            "object_store": str(self.state_dir / "objects"),
            "auth_issuer": "openledger-development" if development else "",
            "auth_jwks": str(self.state_dir / "issuer" / "jwks.json") if development else "",
        }
        for name, value in derived.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)  # the model is frozen for everyone else
        if not self.auth_issuer:
            raise ValueError(
                f"auth_mode=oidc needs {_PREFIX}AUTH_ISSUER"
                f" (or ask for the local issuer: {_PREFIX}AUTH_MODE=development)"
            )
        self._check_keys()
        self._check_transport()
        return self

    def _check_keys(self) -> None:
        """Keys that anyone on the way could replace are nobody's."""
        name, address = "auth_jwks", self.auth_jwks
        if not address:
            name, address = "auth_issuer", self.auth_issuer
            if "://" not in address:
                raise ValueError(f"auth_issuer={address} is no URL to ask for its keys: set auth_jwks too")
        if "://" in address and not address.startswith("file://") and not is_trustworthy(address):
            raise ValueError(f"{name}={address}: keys that come by http could be anyone's; use https")

    def _check_transport(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        if self.tls_cert is not None:
            return
        if self.grpc_host not in LOOPBACK:
            raise ValueError(
                f"grpc_host={self.grpc_host} is reachable by other machines: set tls_cert and tls_key"
                " (plain text is served on a loopback address only)"
            )
        if not (self.insecure_transport or self.auth_mode == "development"):
            raise ValueError(
                f"without tls_cert and tls_key tokens would travel in plain text: set them, or ask for it by"
                f" {_PREFIX}INSECURE_TRANSPORT=1 (this machine only)"
            )

    @classmethod
    def _own_prefix(cls) -> str:
        return f"{_PREFIX}{cls.service.upper()}_"

    @classmethod
    def _describe(cls, error: dict[str, Any]) -> str:
        message = str(error["msg"]).removeprefix("Value error, ")
        if not error["loc"]:
            return message
        field = str(error["loc"][0]).upper()
        shared = field.lower() in ServiceSettings.model_fields
        own = f"{cls._own_prefix()}{field}"
        name = own if own in os.environ or not shared else f"{_PREFIX}{field}"
        return f"{name}={error.get('input')!r}: {message}"


class _SharedVariables(EnvSettingsSource):
    """The machine's variables set shared fields only: a service's own field needs the service's prefix."""

    def __call__(self) -> dict[str, Any]:
        return {
            name: value for name, value in super().__call__().items() if name in ServiceSettings.model_fields
        }
