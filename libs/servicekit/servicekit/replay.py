"""Dead letters as operators see them, and how one goes back to the topic it came from.

Consumers move letters to `<topic>.dlq` (`servicekit.dead_letters`), and nothing is ever taken out of it. A replay leaves a
note in `<topic>.dlq.replays`: so every operator, on any machine, sees what was replayed, when and by whom.

A replayed event is the letter's record as it first came, `ce_id` included, plus one header that names the group that had
refused it. Other groups skip it: they have had it, perhaps so long ago that their inbox has forgotten it. For the group
itself the inbox makes it effective once, however often it is replayed. It is handled after what came later for its key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from servicekit.eventlog.base import MAX_RECORD_BYTES, Headers, InRecord, OutRecord, Topic

REPLAY_FOR = "dlq_replay_for"
"""Header of a replayed event: the one group that is to handle it."""

_OURS = "dlq_"
_NOTE_OF, _NOTE_TIME, _NOTE_BY = "dlq_note_of", "dlq_note_time", "dlq_note_by"


class NotReplayable(Exception):
    """The letter lacks what a replay needs; the text says what."""


@dataclass(frozen=True)
class Replay:
    """That a letter was replayed."""

    time: str
    by: str


@dataclass(frozen=True)
class DeadLetter:
    """A record that a group refused, and what it said then. What a letter does not say is ""."""

    record: InRecord
    """As it stands in the dead-letter topic."""
    reason: str
    detail: str
    group: str
    topic: str
    """Where it came from, with `partition` and `offset`."""
    partition: int
    offset: int
    time: str
    left_out: bool
    """Its value was too large to come along; the bytes may still stand where it came from."""
    replays: tuple[Replay, ...]

    @property
    def event_id(self) -> str:
        """Its `ce_id`."""
        return _text(self.record.headers, "ce_id")

    @property
    def event_type(self) -> str:
        """Its `ce_type`."""
        return _text(self.record.headers, "ce_type")

    def as_it_came(self) -> InRecord:
        """The record where and as it first stood."""
        headers = tuple(pair for pair in self.record.headers if not pair[0].startswith(_OURS))
        return replace(
            self.record, topic=self.topic, partition=self.partition, offset=self.offset, headers=headers
        )


def read_letters(letters: Iterable[InRecord], notes: Iterable[InRecord]) -> list[DeadLetter]:
    """The letters of a dead-letter topic, in order, each with its replays."""
    replays: dict[int, list[Replay]] = {}
    for record in notes:
        said = Replay(_text(record.headers, _NOTE_TIME), _text(record.headers, _NOTE_BY))
        replays.setdefault(_number(_text(record.headers, _NOTE_OF)), []).append(said)
    return [_letter(record, tuple(replays.get(record.offset, ()))) for record in letters]


def replayed(letter: DeadLetter, value: bytes | None = None) -> OutRecord:
    """The record to send. `value` is the original's, needed when the letter had left it out.

    Raises:
        NotReplayable: it does not say where it came from or who refused it, its value is gone, or it is too large.
    """
    if not letter.topic or not letter.group:
        raise NotReplayable("it does not say which topic it came from or which group refused it")
    if letter.left_out and value is None:
        raise NotReplayable(
            f"its value was too large to come along, and {letter.topic} no longer keeps it at"
            f" partition {letter.partition}, offset {letter.offset}"
        )
    original = letter.as_it_came()
    content = value if letter.left_out and value is not None else original.value
    headers = (*original.headers, (REPLAY_FOR, letter.group.encode()))
    again = OutRecord(letter.topic, original.key, content, headers)
    if again.size() > MAX_RECORD_BYTES:
        raise NotReplayable(
            f"with the header that names its group it holds {again.size()} bytes, too many for the log"
        )
    return again


def note(letter: DeadLetter, by: str) -> OutRecord:
    """What a replay leaves in the notes' topic."""
    headers = (
        (_NOTE_OF, str(letter.record.offset).encode()),
        (_NOTE_TIME, datetime.now(UTC).isoformat(timespec="seconds").encode()),
        (_NOTE_BY, by.encode()),
    )
    return OutRecord(notes_topic(letter.topic).name, letter.record.key, b"", headers)


def notes_topic(topic: str) -> Topic:
    """Where the replays of a topic's dead letters are noted."""
    return Topic(f"{topic}.dlq.replays")


def _letter(record: InRecord, replays: tuple[Replay, ...]) -> DeadLetter:
    headers = record.headers
    return DeadLetter(
        record=record,
        reason=_text(headers, "dlq_reason"),
        detail=_text(headers, "dlq_detail"),
        group=_text(headers, "dlq_group"),
        topic=_text(headers, "dlq_topic"),
        partition=_number(_text(headers, "dlq_partition")),
        offset=_number(_text(headers, "dlq_offset")),
        time=_text(headers, "dlq_time"),
        left_out=bool(_text(headers, "dlq_left_out")),
        replays=replays,
    )


def _text(headers: Headers, name: str) -> str:
    """The last of that name: a letter that was replayed and refused again carries what was said last."""
    return dict(headers).get(name, b"").decode(errors="replace")


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else -1
