"""The settings that all services share, their sources, and their validation.

The first source that has a setting wins: keyword arguments, then ``OPENLEDGER_<SERVICE>_<FIELD>`` (this service only), then
``OPENLEDGER_<FIELD>`` (all services of a machine; only for the fields of this module). So ``OPENLEDGER_STATE_DIR`` moves
everything, and ``OPENLEDGER_DATANET_GRPC_PORT`` changes one port.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from servicekit.address import LOOPBACK, is_trustworthy
from servicekit.deadlines import DatabaseDeadlines
from servicekit.errors import StartupError

_PREFIX = "OPENLEDGER_"


class ServiceSettings(BaseSettings):
    """The settings that all services share. A service subclasses it, sets ``service`` to its name, and adds its own settings.

    URLs that are left empty are derived from ``state_dir`` when the object is built. Programs call ``load()``, which raises
    `StartupError` with one line. The constructor raises pydantic's ValidationError.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True, validate_default=True)

    service: ClassVar[str] = "service"
    """The service's name, as its package: ``datanet``, ``chain_relay``."""

    state_dir: Path = Field(default=Path(".openledger"), description="Folder for all local files.")
    grpc_host: str = Field(
        default="127.0.0.1", description="Address that the gRPC, metrics and HTTP servers bind to."
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
    database_statement_s: float = Field(
        default=DatabaseDeadlines.statement_s,
        ge=1,
        description="Longest that PostgreSQL may work on one statement. Migrations have an hour for each.",
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
    auth_issuer_replaces: str = Field(
        default="",
        description="Earlier issuer whose subjects are the same people; lets a service with a new issuer start on its database.",
    )
    auth_audience: str = Field(default="openledger", min_length=1, description="Required `aud` of tokens.")
    auth_jwks: str = Field(
        default="",
        description="Signing keys: file or https URL; default: where the issuer's /.well-known/openid-configuration says.",
    )
    auth_keys_max_age_s: float = Field(
        default=600.0,
        gt=0,
        description="Age at which signing keys are read again: a withdrawn key may work for so long.",
    )
    auth_roles_claim: str = Field(
        default="roles",
        min_length=1,
        description="Claim of roles: a list or a text with spaces; dots descend (realm_access.roles).",
    )
    auth_roles_shape: Literal["names", "zitadel"] = Field(
        default="names",
        description="Form of that claim; zitadel: an object of roles, each with the organisations that granted it.",
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

    public_reflection: bool = Field(
        default=False,
        description="gRPC reflection answers without a token; otherwise any valid token will do.",
    )

    rate_per_s: float = Field(
        default=200.0,
        gt=0,
        description="Sustained rate of calls, per second, that one principal may make to one process.",
    )
    rate_burst: int = Field(default=1000, ge=1, description="Calls that it may make at once after a pause.")
    max_running_calls: int = Field(
        default=256, ge=1, description="Calls and streams that one principal may have open in one process."
    )
    max_request_memory_bytes: int = Field(
        default=128 << 20,
        ge=16 << 20,
        description="Bytes of requests that one process receives and handles at once; one principal may hold half of them.",
    )
    max_response_memory_bytes: int = Field(
        default=64 << 20,
        ge=32 << 20,
        description="Bytes of responses that the callers of one process have not taken yet, an eighth of them of one principal.",
    )
    max_request_streams: int = Field(
        default=128,
        ge=4,
        description="Streams of requests open in one process, a quarter of them of one principal. Each may hold 4 MiB.",
    )
    max_http_connections: int = Field(
        default=2000,
        ge=16,
        description="Connections that the HTTP server of a process accepts; fewer where it may open few files.",
    )
    max_http_connections_per_address: int = Field(
        default=500, ge=1, description="Connections that the HTTP server accepts from one address."
    )
    max_concurrent_streams: int = Field(
        default=256, ge=1, description="Calls that one connection may have open; more wait at the client."
    )
    request_id_ttl_s: float = Field(
        default=7 * 24 * 3600.0,
        ge=60,
        description="Time for which a request_id is kept: a repeat within it returns what the first call made.",
    )
    default_deadline_s: float = Field(
        default=30.0, gt=0, description="Deadline of a unary call whose client gave none."
    )
    max_deadline_s: float = Field(default=300.0, gt=0, description="Longest deadline a unary call may have.")
    max_connection_idle_s: float = Field(
        default=60.0,
        gt=0,
        description="Time after which a gRPC connection without a call is closed. Clients connect again when they call.",
    )
    max_connection_age_s: float = Field(
        default=3600.0,
        gt=0,
        description="Age at which a connection is asked to reconnect, so that load rebalances.",
    )
    max_connection_age_grace_s: float = Field(
        default=600.0, gt=0, description="Time that its running calls then have."
    )
    grace_s: float = Field(
        default=10.0, ge=0, description="Time that running calls have when the service stops."
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe level that is logged."
    )
    log_format: Literal["json", "text"] = Field(
        default="json", description="json for machines, text for people."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="Endpoint to which traces are sent by OTLP/gRPC, http://host:4317; unset: traces are not recorded.",
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
        description="Fraction of the traces that begin here to record; for other traces the caller's decision holds.",
    )

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Returns the settings from ``overrides`` and the environment.

        Raises:
            StartupError: one line that names each invalid setting, its value and what is allowed.
        """
        try:
            return cls(**overrides)
        except ValidationError as error:
            raise StartupError(
                "bad settings: " + "; ".join(cls._describe(dict(e)) for e in error.errors())
            ) from None

    @classmethod
    def unknown_variables(cls) -> list[str]:
        """Returns environment variables with this service's prefix that name no setting: most likely typing errors."""
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
        """Derives empty settings and refuses combinations that cannot work."""
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
        """Refuses sources of keys at which a third party could replace the keys."""
        name, address = "auth_jwks", self.auth_jwks
        if not address:
            name, address = "auth_issuer", self.auth_issuer
            if "://" not in address:
                raise ValueError(f"auth_issuer={address} is not a URL with keys: set auth_jwks too")
        if "://" in address and not address.startswith("file://") and not is_trustworthy(address):
            raise ValueError(
                f"{name}={address}: a third party could replace keys that are read by http; use https"
            )

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
    """Variables for all services set shared fields only: a service's own field needs the service's prefix."""

    def __call__(self) -> dict[str, Any]:
        return {
            name: value for name, value in super().__call__().items() if name in ServiceSettings.model_fields
        }
