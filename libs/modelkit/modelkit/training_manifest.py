"""Training manifests: what a model version was trained on. The training writes one, and attribution reads it.

A training manifest is a canonical JSON object in the object store; the model version names its digest. Attribution
indexes exactly the records that the manifest lists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from identity.digest import canonical_json

KIND = "training-manifest"
VERSION = 2
"""Version 1 called rehearsal replay; `from_bytes` reads both."""


class InvalidTrainingManifest(ValueError):
    """The object is not a training manifest of a version that this code reads."""


@dataclass(frozen=True, kw_only=True)
class ManifestSnapshot:
    """A snapshot that was trained on, and each record of it that was seen."""

    name: str
    """`datanets/{datanet}/snapshots/{number}`."""
    root: str
    records_digest: str
    manifest_digest: str
    weight: float
    prompt: str
    """Prompt template; see modelkit.prompt."""
    completion: str
    """Completion template."""
    template_digest: str
    records: Mapping[str, int]
    """Times each record was seen, by record digest. Records of the train split that were never seen are
    absent."""


@dataclass(frozen=True, kw_only=True)
class ManifestRehearsal:
    """Where rehearsal came from. kind "none" has an empty digest and zeros."""

    kind: str
    digest: str
    """sha256 of the canonical JSON list of rehearsed token lists."""
    sequences: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class TrainingManifest:
    """Everything needed to know what a run learned from, and to run it again."""

    base_digest: str
    adapter_digest: str
    snapshots: tuple[ManifestSnapshot, ...]
    rehearsal: ManifestRehearsal
    spec: Mapping[str, Any]
    """The effective spec."""
    origins: Mapping[str, str]
    """Where each of its values came from, by path: default, suggested or user."""
    steps: int
    truncated_records: int
    """Records whose prompt lost its beginning to fit max_tokens."""
    compute: Mapping[str, Any]
    packages: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """The canonical JSON whose digest names the manifest."""
        return canonical_json({"kind": KIND, "version": VERSION, **asdict(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Returns the manifest that the bytes hold. Raises InvalidTrainingManifest."""
        try:
            content: Any = json.loads(data)
            kind, number = content.pop("kind"), content.pop("version")
            if kind != KIND or number not in (1, VERSION):
                raise InvalidTrainingManifest(
                    f"kind {kind!r}, version {number!r}; not a {KIND} of version 1 or {VERSION}"
                )
            if number == 1:
                _rename_replay(content)
            snapshots = tuple(ManifestSnapshot(**snapshot) for snapshot in content.pop("snapshots"))
            return cls(
                snapshots=snapshots, rehearsal=ManifestRehearsal(**content.pop("rehearsal")), **content
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidTrainingManifest(f"not a training manifest: {error}") from error


def _rename_replay(content: dict[str, Any]) -> None:
    """Gives the content of a version 1 manifest the names of version 2."""
    content["rehearsal"] = content.pop("replay")
    spec = content["spec"]
    if "replay" in spec:
        spec["rehearsal"] = spec.pop("replay")
    origins = content["origins"].items()
    content["origins"] = {path.replace("replay.", "rehearsal."): origin for path, origin in origins}
