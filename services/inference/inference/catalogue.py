"""What is served now: the base model and promoted versions, held in memory for the request path.

A `Catalogue` is an immutable copy of the read model in the database. A new one replaces it as a whole, so a request
never sees half a change and never waits for the database.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from identity.names import ModelVersionName
from servicekit.errors import FailedPrecondition, NotFound
from servicekit.lists import BOOLEAN, TEXT, Field, Listing


class VersionState(enum.Enum):
    """State of a model version, as the trainer reports it."""

    TRAINED = "trained"
    EVALUATED = "evaluated"
    BLOCKED = "blocked"
    PROMOTED = "promoted"
    RETIRED = "retired"


@dataclass(frozen=True, kw_only=True)
class Version:
    """A model version as its newest event describes it."""

    name: str
    """`models/{model}/versions/{n}`."""
    state: VersionState
    version_digest: str
    base_digest: str
    adapter_digest: str
    report_digest: str
    owner: str
    changed: datetime
    """When the state changed: the version promoted last is the one that `models/{model}` means."""

    @property
    def model(self) -> str:
        """`models/{model}`."""
        return self.name.partition("/versions/")[0]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that answers requests. The digests after `base_digest` and the owner are "" for the base."""

    name: str
    base_digest: str
    adapter_digest: str = ""
    version_digest: str = ""
    report_digest: str = ""
    owner: str = ""
    is_default: bool = False


def _number(served: Served) -> int:
    """Returns a version's number; 0 for the base."""
    return int(served.name.rpartition("/versions/")[2]) if "/versions/" in served.name else 0


SERVED_MODELS = Listing(
    fields={
        "name": Field(lambda served: served.name, TEXT),
        "base_digest": Field(lambda served: served.base_digest, TEXT, sortable=False),
        "adapter_digest": Field(lambda served: served.adapter_digest, TEXT, sortable=False),
        "version_digest": Field(lambda served: served.version_digest, TEXT, sortable=False),
        "report_digest": Field(lambda served: served.report_digest, TEXT, sortable=False),
        "is_default": Field(lambda served: served.is_default, BOOLEAN),
    },
    key=[
        lambda served: served.name.startswith("models/"),  # the base first
        lambda served: served.name.partition("/versions/")[0],
        _number,
    ],
)
"""What callers of ListServedModels may filter and sort by."""


class Catalogue:
    """The base model and the promoted versions of it.

    `base` is the name (`baseModels/{id}`) and digest of the one base model this process runs.
    """

    def __init__(self, base_name: str, base_digest: str, versions: Iterable[Version] = ()) -> None:
        self._base = Served(name=base_name, base_digest=base_digest)
        self._versions = {version.name: version for version in versions}
        newest: dict[str, Version] = {}
        for version in self._promoted():
            current = newest.get(version.model)
            if current is None or _order(version) > _order(current):
                newest[version.model] = version
        self._default = {model: version.name for model, version in newest.items()}

    def served(self) -> list[Served]:
        """Returns the base first, then versions by name and number."""
        ordered = sorted(self._promoted(), key=lambda version: _order(version)[1:])
        return [self._base, *(self._served(version) for version in ordered)]

    def resolve(self, name: str) -> Served:
        """Returns what a name stands for now.

        Raises NotFound for an unknown name, FailedPrecondition for a version that is not promoted, a
        model without a promoted version, or a version of another base model.
        """
        if name == self._base.name:
            return self._base
        if name in self._default:
            return self._served(self._versions[self._default[name]])
        version = self._versions.get(name)
        if version is None:
            if any(known.model == name for known in self._versions.values()):
                raise FailedPrecondition(
                    "MODEL_HAS_NO_PROMOTED_VERSION", f"{name} has no promoted version", subject=name
                )
            raise NotFound("base model" if name.startswith("baseModels/") else "model", name)
        if version.base_digest != self._base.base_digest:
            raise FailedPrecondition(
                "OTHER_BASE_MODEL",
                f"{name} was tuned from base {version.base_digest}; this service serves {self._base.base_digest}",
                subject=name,
            )
        if version.state is not VersionState.PROMOTED:
            raise FailedPrecondition(
                f"MODEL_VERSION_{version.state.name}",
                f"{name} is {version.state.value}; only promoted versions are served",
                subject=name,
                state=version.state.value,
            )
        return self._served(version)

    def _promoted(self) -> list[Version]:
        return [
            version
            for version in self._versions.values()
            if version.state is VersionState.PROMOTED and version.base_digest == self._base.base_digest
        ]

    def _served(self, version: Version) -> Served:
        return Served(
            name=version.name,
            base_digest=version.base_digest,
            adapter_digest=version.adapter_digest,
            version_digest=version.version_digest,
            report_digest=version.report_digest,
            owner=version.owner,
            is_default=self._default.get(version.model) == version.name,
        )


def _order(version: Version) -> tuple[datetime, str, int]:
    name = ModelVersionName.parse(version.name)
    return version.changed, name.model, name.version


def size_in_response(served: Served) -> int:
    """Returns a bound for a model's size in a response: its names and digests."""
    texts = (
        served.name,
        served.base_digest,
        served.adapter_digest,
        served.version_digest,
        served.report_digest,
    )
    return len("".join((*texts, served.owner)).encode()) + 100
