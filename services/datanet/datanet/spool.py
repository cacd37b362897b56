"""The accepted records of a Datanet, copied into files when sealing begins: later steps read the same records, whatever happens
to the Datanet meanwhile, and a sealing that is repeated after a crash does too.

content      the records' canonical JSON, one after the other
rows         an entry of fixed size for each record, in the order of arrival: digest, contributor, place of the content
contributors the names that rows refer to by number, as JSON
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datanet.snapshot import AcceptedRecord
from identity.digest import digest_to_bytes

_ROW = np.dtype([("digest", "V32"), ("contributor", "<u4"), ("size", "<u4"), ("start", "<u8")])
_ROWS_AT_ONCE = 4096


def write_spool(records: Iterable[AcceptedRecord], folder: Path) -> int:
    """Copies records, in the order of arrival, and returns how many they are."""
    numbers: dict[str, int] = {}
    total = start = 0
    rows: list[tuple[bytes, int, int, int]] = []
    with (folder / "content").open("wb") as contents, (folder / "rows").open("wb") as places:
        for record in records:
            contributor = numbers.setdefault(record.contributor, len(numbers))
            rows.append((digest_to_bytes(record.digest), contributor, len(record.content), start))
            contents.write(record.content)
            start += len(record.content)
            total += 1
            if len(rows) == _ROWS_AT_ONCE:
                np.array(rows, _ROW).tofile(places)
                rows = []
        np.array(rows, _ROW).tofile(places)
    (folder / "contributors").write_text(json.dumps(list(numbers)))
    return total


class Spool:
    """Reads the files of `write_spool`; a context manager."""

    def __init__(self, folder: Path) -> None:
        rows = np.fromfile(folder / "rows", _ROW)
        self._digests = rows["digest"].tobytes()
        self._numbers = rows["contributor"].astype(np.int64)
        self._sizes, self._starts = rows["size"].astype(np.int64), rows["start"].astype(np.int64)
        self.contributors: list[str] = json.loads((folder / "contributors").read_text())
        self._content = (folder / "content").open("rb")

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *args: object) -> None:
        self._content.close()

    def __len__(self) -> int:
        return len(self._numbers)

    def digest(self, index: int) -> str:
        """Returns the digest of a record."""
        return f"sha256:{self._digests[32 * index : 32 * index + 32].hex()}"

    def content(self, index: int) -> bytes:
        """Returns the canonical JSON of a record."""
        return os.pread(self._content.fileno(), int(self._sizes[index]), int(self._starts[index]))

    def contents(self) -> Iterator[bytes]:
        """Yields the canonical JSON of all records in the order of arrival."""
        self._content.seek(0)
        yield from map(self._content.read, map(int, self._sizes))

    def contributor_numbers(self) -> npt.NDArray[np.int64]:
        """Returns, for each record, the number of its contributor."""
        return self._numbers

    def by_digest(self) -> npt.NDArray[np.int64]:
        """Returns the indices of the records in ascending order of their digests."""
        words = np.frombuffer(self._digests, ">u8").reshape(-1, 4).astype(np.uint64)
        return np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0]))
