"""What can be asked now: the base model and promoted versions, held in memory for the answering path.

A `Catalogue` is an immutable picture made from the projection in the database; a new one replaces it whole,
so a question never sees half a change and never waits for the database.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from identity.names import ModelVersionName
from servicekit.errors import FailedPrecondition, NotFound


class VersionState(enum.Enum):
    """State of a model version, as the trainer tells it."""

    TRAINED = "trained"
    EVALUATED = "evaluated"
    BLOCKED = "blocked"
    PROMOTED = "promoted"
    RETIRED = "retired"


@dataclass(frozen=True)
class Version:
    """A model version as last heard of."""

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


@dataclass(frozen=True)
class Served:
    """Something that can be asked. The digests after `base_digest` and the owner are "" for the base."""

    name: str
    base_digest: str
    adapter_digest: str = ""
    version_digest: str = ""
    report_digest: str = ""
    owner: str = ""
    is_default: bool = False


class Catalogue:
    """What one base model and the versions known so far offer.

    `base` is the name (`baseModels/{id}`) and digest of the one base model this process runs.
    """

    def __init__(self, base_name: str, base_digest: str, versions: Iterable[Version] = ()) -> None:
        self._base = Served(base_name, base_digest)
        self._versions = {version.name: version for version in versions}
        newest: dict[str, Version] = {}
        for version in self._promoted():
            current = newest.get(version.model)
            if current is None or _order(version) > _order(current):
                newest[version.model] = version
        self._default = {model: version.name for model, version in newest.items()}

    def served(self) -> list[Served]:
        """The base first, then versions by name and number."""
        ordered = sorted(self._promoted(), key=lambda version: _order(version)[1:])
        return [self._base, *(self._served(version) for version in ordered)]

    def resolve(self, name: str) -> Served:
        """What a name means now.

        Raises NotFound for a name never heard of, FailedPrecondition for a version that is not promoted, a
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
                f"{name} was tuned from base {version.base_digest}; this service runs {self._base.base_digest}",
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
        served = Served(
            version.name,
            version.base_digest,
            version.adapter_digest,
            version.version_digest,
            version.report_digest,
            version.owner,
        )
        return replace(served, is_default=self._default.get(version.model) == version.name)


def _order(version: Version) -> tuple[datetime, str, int]:
    name = ModelVersionName.parse(version.name)
    return version.changed, name.model, name.version
