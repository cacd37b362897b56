"""What a model version was trained on: written by the trainer, read by whoever asks whose data is in an
answer.

A canonical JSON object in the object store; its digest stands in the model version. Attribution indexes
exactly the records that it lists. This module imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from identity.digest import canonical_json

KIND = "training-manifest"
VERSION = 1


class InvalidTrainingManifest(ValueError):
    """The object is not a training manifest of a version that this code reads."""


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class ManifestReplay:
    """Where replay came from. kind "none" has an empty digest and zeros."""

    kind: str
    digest: str
    """sha256 of the canonical JSON list of replayed token lists."""
    sequences: int
    tokens: int


@dataclass(frozen=True)
class TrainingManifest:
    """Everything needed to know what a run learned from, and to run it again."""

    base_digest: str
    adapter_digest: str
    snapshots: tuple[ManifestSnapshot, ...]
    replay: ManifestReplay
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
        """Raises InvalidTrainingManifest."""
        try:
            content: Any = json.loads(data)
            if content.pop("kind") != KIND or content.pop("version") != VERSION:
                raise InvalidTrainingManifest(f"not a {KIND} of version {VERSION}")
            snapshots = tuple(ManifestSnapshot(**snapshot) for snapshot in content.pop("snapshots"))
            return cls(snapshots=snapshots, replay=ManifestReplay(**content.pop("replay")), **content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidTrainingManifest(f"not a training manifest: {error}") from error
