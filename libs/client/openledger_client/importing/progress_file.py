"""How far an import has come, in a file: what a later process needs to continue it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from openledger_client.importing.rows import InputError

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What has become of the rows so far. Immutable: one that was read between two rows is right."""

    rows: int = 0
    """Rows of the file that are done: each is durable in the Datanet, or refused."""
    end: int = 0
    """How far the file is read, as in `Row`."""
    accepted: int = 0
    pending: int = 0
    """Records that wait for review by a person."""
    present: int = 0
    """Records that the Datanet had from this contributor: sent before, or twice in the file."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Rows that were not imported, by rule."""
    rejected_bytes: int = 0
    """Size of the file of rejected rows."""

    @property
    def refused_count(self) -> int:
        """All rows that were not imported."""
        return sum(self.refused.values())


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What an import is of; one that continues must be the same."""

    size: int
    modified_ns: int
    """Size and time of change of the file."""
    contributor: str
    settings: str
    """Digest of format, encoding, mapping and constants."""
    rejected: str
    """The file of rejected rows; "" without one."""

    @classmethod
    def of(cls, path: Path, contributor: str, settings: object, rejected: Path | None) -> Identity:
        """Returns the identity of an import. Raises InputError if the file cannot be read."""
        try:
            found = path.stat()
        except OSError as error:
            raise InputError.of(
                "file", "readable", f"{str(path)!r} cannot be read: {error.strerror}"
            ) from None
        return cls(
            size=found.st_size,
            modified_ns=found.st_mtime_ns,
            contributor=contributor,
            settings=sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
            rejected=str(rejected.resolve()) if rejected else "",
        )


_CHANGED = {
    "size": "the file has another size than then",
    "modified_ns": "the file was changed since",
    "contributor": "it was for another contributor",
    "settings": "it had another format, encoding, --map, --set or --ignore-other-fields",
    "rejected": "it wrote its rejected rows to another file",
}


class ProgressFile:
    """The progress of one import."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self._identity = identity

    @classmethod
    def beside(cls, file: Path) -> Path:
        """Returns where the progress of a file is written by default: next to it."""
        return file.with_name(f"{file.name}.import-progress.json")

    def read(self) -> Tally | None:
        """Returns how far the import came; None if none was interrupted. Raises InputError if that was another import."""
        try:
            found = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._error(f"cannot be read: {error}") from None
        if not isinstance(found, dict) or found.get("version") != _VERSION:
            raise self._error("is no progress of an import that this version can continue")
        for name, value in asdict(self._identity).items():
            if found["import"].get(name) != value:
                raise self._error(
                    f"is the progress of another import: {_CHANGED[name]}. Start again without --resume: "
                    "nothing is doubled, as the Datanet recognises the records that it has"
                )
        return Tally(**found["done"])

    def write(self, tally: Tally) -> None:
        """Records how far it is, so that a crash leaves the previous or the new state. Raises InputError."""
        content = {"version": _VERSION, "import": asdict(self._identity), "done": asdict(tally)}
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            with draft.open("w") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise self._error(
                f"cannot be written: {error.strerror}; give another place by --progress-file"
            ) from None

    def remove(self) -> None:
        """Forgets the import: it is complete."""
        self.path.unlink(missing_ok=True)

    def _error(self, reason: str) -> InputError:
        return InputError.of("progress_file", "usable", f"{self.path}: {reason}")
