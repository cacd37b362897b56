"""Answers: from the inference service's write-ahead log to the event about an attribution record."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from openledger.attribution.v1 import attribution_pb2
from openledger.inference.v1 import inference_pb2

from identity.digest import sha256_bytes
from openledger_cli.reconcile.book import Book
from openledger_cli.reconcile.deliveries import Deliveries
from openledger_cli.reconcile.events import Telling, Told
from openledger_cli.reconcile.rows import Rows
from servicekit.database import UtcDateTime, utc_now
from servicekit.topics import ATTRIBUTION_SCORED_V1, INFERENCE_COMPLETED_V1
from servicekit.wal import frames, unpack

RECORDED, TOLD = "answer in the write-ahead log", "answer told"
ATTRIBUTED, WHOLE, SCORED = "answer attributed", "attribution record whole", "attribution told"
PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class Attributed:
    """What an event says of an attribution."""

    inference: str
    digest: str


def check(book: Book, telling: Telling, deliveries: Deliveries, answer_log: Path) -> list[Told[Attributed]]:
    """Judges every answer; returns the events about attributions, for settlement."""
    unsent = list(recorded(answer_log))  # before the log is read: what is sent meanwhile is then found there
    completed = telling.told(
        INFERENCE_COMPLETED_V1,
        "inference",
        inference_pb2.InferenceCompleted,
        lambda message: message.inference,
    )
    _check_told(book, unsent, completed)
    deliveries.check(book, INFERENCE_COMPLETED_V1, completed, ["attribution"])
    _check_attributed(book, telling.rows["attribution"], deliveries, completed)
    scored = telling.told(
        ATTRIBUTION_SCORED_V1,
        "attribution",
        attribution_pb2.AttributionScored,
        lambda message: Attributed(message.attribution.inference, message.attribution.digest),
    )
    _check_scored(book, telling.rows["attribution"], scored)
    return scored


def recorded(folder: Path) -> Iterator[str]:
    """Inferences in the write-ahead log's segments, sent ones included until their segment goes."""
    for path in sorted(folder.glob("*.wal")):
        try:
            payloads, _ = frames.decode(path.read_bytes())
        except FileNotFoundError:
            continue  # sent and deleted meanwhile
        for payload in payloads:
            record = unpack(payload)
            if record.topic == INFERENCE_COMPLETED_V1.name:
                yield inference_pb2.InferenceCompleted.FromString(record.value).inference


def _check_told(book: Book, recorded: Sequence[str], completed: Sequence[Told[str]]) -> None:
    """Every recorded answer comes to the log, as one event."""
    in_log = Counter(each.kept for each in completed)
    book.saw(RECORDED, len(recorded))
    for inference, count in Counter(recorded).items():
        if count > 1:
            book.doubled(RECORDED, inference, f"stands {count} times")
        if inference not in in_log:
            book.waiting(RECORDED, inference, "is not in the event log yet")
    book.saw(TOLD, len(in_log))
    for inference, count in in_log.items():
        if count > 1:
            book.doubled(TOLD, inference, f"{count} events of different ids")


def _check_attributed(book: Book, rows: Rows, deliveries: Deliveries, completed: Sequence[Told[str]]) -> None:
    """Every answer that was taken in is there, pending or scored; and none that nobody gave."""
    answers = rows.all("SELECT id, pending, score_time FROM answers", {"score_time": UtcDateTime()})
    book.saw(ATTRIBUTED, len(answers))
    pending = {row.id: bool(row.pending) for row in answers}
    told: set[str] = set()
    for each in completed:
        id_ = each.kept.removeprefix("inferences/")
        told.add(id_)
        if id_ not in pending and deliveries.effective("attribution", each):
            book.lost(ATTRIBUTED, each.kept, "its event took effect, but there is no such answer")
    kept_since = utc_now() - timedelta(hours=INFERENCE_COMPLETED_V1.retention_hours or 0)
    for row in answers:
        if row.pending:
            book.waiting(ATTRIBUTED, f"inferences/{row.id}", "is not scored yet")
        if row.id not in told and (row.score_time is None or row.score_time > kept_since):
            book.lost(ATTRIBUTED, f"inferences/{row.id}", "there is no event about it")


def _check_scored(book: Book, rows: Rows, scored: Sequence[Told[Attributed]]) -> None:
    """Every scored answer's record is what its digest says, adds up, and was told in one event."""
    events: Mapping[str, list[str]] = defaultdict(list)
    for each in scored:
        events[each.kept.inference].append(each.kept.digest)
    kept_since = utc_now() - timedelta(hours=ATTRIBUTION_SCORED_V1.retention_hours or 0)
    shares: Mapping[str, dict[str, int]] = defaultdict(dict)
    for row in rows.all("SELECT answer, contributor, ppm FROM shares"):
        shares[row.answer][row.contributor] = row.ppm
    known: set[str] = set()
    for row in rows.all(
        "SELECT id, record, digest, unattributed_ppm, score_time FROM answers WHERE NOT pending",
        {"score_time": UtcDateTime()},
    ):
        inference = f"inferences/{row.id}"
        known.add(inference)
        book.saw(SCORED, 1)
        if inference in events or row.score_time > kept_since:
            book.once(SCORED, inference, events.get(inference, []), "event")
        if any(digest != row.digest for digest in events.get(inference, [])):
            book.lost(SCORED, inference, f"the event does not carry {row.digest}")
        _check_whole(book, inference, bytes(row.record), row.digest, row.unattributed_ppm, shares[row.id])
    for inference in events.keys() - known:
        book.lost(SCORED, inference, "an event tells of it, but there is no such record")


def _check_whole(
    book: Book, inference: str, record: bytes, digest: str, unattributed_ppm: int, shares: Mapping[str, int]
) -> None:
    book.saw(WHOLE, 1)
    if sha256_bytes(record) != digest:
        book.lost(WHOLE, inference, f"the record is not {digest}")
        return
    told = {share["contributor"]: share["ppm"] for share in json.loads(record)["shares"]}
    if told != shares:
        book.same(WHOLE, inference, len(shares), len(told), "share rows")
        if len(told) == len(shares):
            book.lost(WHOLE, inference, "the share rows are not those of the record")
    book.same(WHOLE, inference, sum(told.values()) + unattributed_ppm, PPM, "shares and unattributed, ppm")
