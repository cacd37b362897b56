"""A copy of what a platform has written down, to be damaged: reconciliation must say so."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from ulid import ULID

from openledger_client import services
from openledger_ops.reconcile.contracts import Addresses

_OFFSET_BITS = 40  # the embedded log's row ids: partition id << 40 | offset


@dataclass(frozen=True)
class State:
    """A state folder of a platform on embedded defaults that is not running."""

    folder: Path

    @classmethod
    def copied(cls, original: Path, to: Path) -> State:
        """Databases, event log, objects and write-ahead log."""
        for service in services.ALL:
            if (original / service.name).exists():
                (to / service.name).mkdir(parents=True)
                for file in (original / service.name).glob("*.db*"):
                    shutil.copy(file, to / service.name)
        for file in original.glob("events.db*"):
            if file.is_file():
                shutil.copy(file, to)
        shutil.copytree(original / "inference" / "wal", to / "inference" / "wal")
        shutil.copytree(original / "objects", to / "objects", copy_function=_link)
        shutil.copytree(original / "chain", to / "chain")
        return cls(to)

    @property
    def event_log(self) -> str:
        """URL of its event log."""
        return f"embedded:{self.folder}/events.db"

    @property
    def contracts(self) -> Addresses:
        """The contracts that its relay wrote to."""
        found = json.loads((self.folder / "chain" / "contracts.json").read_text())
        return Addresses(
            chain_id=int(found["chain_id"]),
            ledger=found["ledger"],
            registry=found["registry"],
            distributor=found["distributor"],
        )

    def sql(self, service: str, *statements: str) -> None:
        """Changes a service's database."""
        self._run(self.folder / service / f"{service}.db", *statements)

    def repeat_row(self, service: str, table: str, **changes: object) -> None:
        """Inserts a table's first row again, with some values changed."""
        with sqlite3.connect(self.folder / service / f"{service}.db") as connection:
            connection.row_factory = sqlite3.Row
            row = {**dict(connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()), **changes}
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))

    def value(self, service: str, query: str) -> str:
        """One value of a service's database."""
        with sqlite3.connect(self.folder / service / f"{service}.db") as connection:
            return str(connection.execute(query).fetchone()[0])

    def forget_event(self, topic: str) -> None:
        """Takes the newest record of a topic out of the event log, as a log that lost its tail."""
        with sqlite3.connect(self.folder / "events.db") as connection:
            ((row,),) = connection.execute(_newest(topic)).fetchall()
            connection.execute("DELETE FROM records WHERE id = ?", (row,))
            partition, offset = row >> _OFFSET_BITS, row & ((1 << _OFFSET_BITS) - 1)
            connection.execute("UPDATE partitions SET next_offset = ? WHERE id = ?", (offset, partition))

    def repeat_event(self, topic: str, *, same_id: bool) -> None:
        """Appends the newest record of a topic once more, as a producer that was killed does: or as a new event."""
        with sqlite3.connect(self.folder / "events.db") as connection:
            row = connection.execute(f"SELECT * FROM records WHERE id = ({_newest(topic)})").fetchone()
            headers = dict(json.loads(row[4]))
            if not same_id:
                headers["ce_id"] = str(ULID())
            partition = row[0] >> _OFFSET_BITS
            (offset,) = connection.execute(
                "SELECT next_offset FROM partitions WHERE id = ?", (partition,)
            ).fetchone()
            again = (partition << _OFFSET_BITS | offset, *row[1:4], json.dumps(list(headers.items())))
            connection.execute(
                "INSERT INTO records (id, timestamp_ms, key, value, headers) VALUES (?, ?, ?, ?, ?)", again
            )
            connection.execute("UPDATE partitions SET next_offset = ? WHERE id = ?", (offset + 1, partition))

    def damage_object(self, digest: str) -> None:
        """Changes one byte of an object."""
        path = self._object(digest)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.unlink()
        path.write_bytes(content)

    def remove_object(self, digest: str) -> None:
        """Deletes an object."""
        self._object(digest).unlink()

    def _object(self, digest: str) -> Path:
        hexadecimal = digest.removeprefix("sha256:")
        return self.folder / "objects" / "sha256" / hexadecimal[:2] / hexadecimal[2:]

    @staticmethod
    def _run(database: Path, *statements: str) -> None:
        with sqlite3.connect(database) as connection:
            for statement in statements:
                changed = connection.execute(statement).rowcount
                assert changed > 0, f"nothing was damaged by: {statement}"


def _newest(topic: str) -> str:
    return f"SELECT max(r.id) FROM records r JOIN partitions p ON p.id = r.id >> 40 WHERE p.topic = '{topic}'"


def _link(source: str, target: str) -> None:
    """Objects never change: a second name for the same bytes. What is damaged gets bytes of its own."""
    Path(target).hardlink_to(source)
