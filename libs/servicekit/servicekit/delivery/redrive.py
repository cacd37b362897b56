"""Dead letters for operators, and how to redrive them: to send them to their original topic again.

Consumers move invalid records to `<topic>.dlq` (`servicekit.delivery.dead_letters`), and nothing is removed from there. A
redrive writes a note to `<topic>.dlq.redrives`, so that every operator, on any machine, sees what was redriven, when, and by
which operator.

A redriven event is the original record, `ce_id` included, plus a header with the group that refused it. Other groups skip it:
they have processed it before, perhaps so long ago that its inbox row is deleted. In its own group it takes effect once,
however often it is redriven, because of the inbox. It is handled after later events with the same key.

The first release called a redrive a replay. Its header and its notes are still read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from servicekit.eventlog.base import MAX_RECORD_BYTES, Headers, InRecord, OutRecord, Topic

REDRIVE_FOR = "dlq_redrive_for"
"""Header of a redriven event: the group that shall handle it."""
_FIRST_REDRIVE_FOR = "dlq_replay_for"  # old name

_OWN_PREFIX = "dlq_"
_NOTE_OF, _NOTE_TIME, _NOTE_BY = "dlq_note_of", "dlq_note_time", "dlq_note_by"


class NotRedrivable(Exception):
    """The letter lacks something that a redrive needs; the text says what."""


@dataclass(frozen=True)
class Redrive:
    """A note about one redrive of a letter."""

    time: str
    by: str


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A record that a group refused, and the group's reason. Texts that the letter does not have are ""."""

    record: InRecord
    """The record in the dead-letter topic."""
    reason: str
    detail: str
    group: str
    topic: str
    """The original topic; `partition` and `offset` are the position in it."""
    partition: int
    offset: int
    time: str
    left_out: bool
    """Whether it lacks its value, which was too large for the dead letters, or damaged. The original topic may still have it."""
    redrives: tuple[Redrive, ...]

    @property
    def event_id(self) -> str:
        """Its `ce_id`."""
        return _text(self.record.headers, "ce_id")

    @property
    def event_type(self) -> str:
        """Its `ce_type`."""
        return _text(self.record.headers, "ce_type")

    def original(self) -> InRecord:
        """Returns the record with its original headers and position."""
        headers = tuple(pair for pair in self.record.headers if not pair[0].startswith(_OWN_PREFIX))
        return replace(
            self.record, topic=self.topic, partition=self.partition, offset=self.offset, headers=headers
        )


def read_letters(letters: Iterable[InRecord], notes: Iterable[InRecord]) -> list[DeadLetter]:
    """Returns the letters of a dead-letter topic, in order, each with its redrives."""
    redrives: dict[int, list[Redrive]] = {}
    for record in notes:
        noted = Redrive(_text(record.headers, _NOTE_TIME), _text(record.headers, _NOTE_BY))
        redrives.setdefault(_number(_text(record.headers, _NOTE_OF)), []).append(noted)
    return [_letter(record, tuple(redrives.get(record.offset, ()))) for record in letters]


def redriven_for(headers: Mapping[str, bytes]) -> bytes | None:
    """Returns the group that shall handle a redriven event; None for an event that was not redriven."""
    return headers.get(REDRIVE_FOR, headers.get(_FIRST_REDRIVE_FOR))


def redriven(letter: DeadLetter, value: bytes | None = None) -> OutRecord:
    """Returns the record to send. `value` is the original one, needed when the letter does not hold it.

    Raises:
        NotRedrivable: the letter does not name its topic or its group, its value is lost, or the record is too large.
    """
    if not letter.topic or not letter.group:
        raise NotRedrivable("it does not say which topic it came from or which group refused it")
    if letter.left_out and value is None:
        raise NotRedrivable(
            f"its value is not among the dead letters (too large, or damaged), and {letter.topic} does not have it at"
            f" partition {letter.partition}, offset {letter.offset}"
        )
    original = letter.original()
    content = value if letter.left_out and value is not None else original.value
    headers = (*original.headers, (REDRIVE_FOR, letter.group.encode()))
    again = OutRecord(letter.topic, original.key, content, headers)
    if again.size() > MAX_RECORD_BYTES:
        raise NotRedrivable(
            f"with the header that names its group it has {again.size()} bytes; the log allows {MAX_RECORD_BYTES}"
        )
    return again


def note(letter: DeadLetter, by: str) -> OutRecord:
    """Returns the note about a redrive, for the topic of notes."""
    headers = (
        (_NOTE_OF, str(letter.record.offset).encode()),
        (_NOTE_TIME, datetime.now(UTC).isoformat(timespec="seconds").encode()),
        (_NOTE_BY, by.encode()),
    )
    return OutRecord(notes_topic(letter.topic).name, letter.record.key, b"", headers)


def notes_topic(topic: str) -> Topic:
    """Returns the topic of the notes about a topic's redrives."""
    return Topic(f"{topic}.dlq.redrives")


def first_notes_topic(topic: str) -> Topic:
    """Returns the topic in which the first release kept these notes."""
    return Topic(f"{topic}.dlq.replays")  # old name


def _letter(record: InRecord, redrives: tuple[Redrive, ...]) -> DeadLetter:
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
        redrives=redrives,
    )


def _text(headers: Headers, name: str) -> str:
    """Returns the last header of that name, because a letter that was redriven and refused again has several."""
    return dict(headers).get(name, b"").decode(errors="replace")


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else -1
