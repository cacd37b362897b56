"""Answers: from the inference service's write-ahead log to the event about an attribution record."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index

from openledger.attribution.v1 import attribution_pb2
from openledger.audit.v1.audit_pb2 import AttributedAnswer, LoggedEvent
from openledger.inference.v1 import inference_pb2

from identity.digest import sha256_bytes
from openledger_client.services import ATTRIBUTION, INFERENCE
from openledger_ops.reconcile.book import Book
from openledger_ops.reconcile.consumers import Consumers
from openledger_ops.reconcile.events import Events, Published
from openledger_ops.reconcile.facts import retention_start
from servicekit.eventlog.topics import ATTRIBUTION_SCORED_V1, INFERENCE_COMPLETED_V1

LOGGED, EVENT = "answer in the write-ahead log", "answer event published"
ATTRIBUTED, INTACT = "answer attributed", "attribution record intact"
SCORED_EVENT = "attribution event published"
PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class Attributed:
    """What an event says of an attribution."""

    inference: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is kept of an attributed answer: its record was checked when it was read, and dropped."""

    inference: str
    pending: bool
    scored_s: int
    """When, Unix time; 0 while pending."""
    digest: str
    problems: Book | None
    """What is wrong with its record; None for most."""


def keep(fact: AttributedAnswer) -> Answer:
    """Checks the record of an answer and keeps the rest."""
    problems = Book()
    if not fact.pending:
        _check_record(problems, fact)
    return Answer(
        inference=fact.inference,
        pending=fact.pending,
        scored_s=fact.score_time.seconds,
        digest=fact.digest,
        problems=problems if problems.findings else None,
    )


def check(book: Book, events: Events, consumers: Consumers) -> list[Published[Attributed]]:
    """Checks every answer. Returns the events about attributions, for settlement."""
    completed = events.published(
        INFERENCE_COMPLETED_V1,
        INFERENCE,
        inference_pb2.InferenceCompleted,
        lambda message: message.inference,
    )
    logged = [
        each.subject
        for each in events.facts[INFERENCE].of(LoggedEvent)
        if each.topic == INFERENCE_COMPLETED_V1.name
    ]
    _check_events(book, logged, completed)
    consumers.check(book, INFERENCE_COMPLETED_V1, inference_pb2.InferenceCompleted, completed)
    answers: list[Answer] = events.facts[ATTRIBUTION].kept(AttributedAnswer)
    _check_attributed(book, answers, consumers, completed)
    scored = events.published(
        ATTRIBUTION_SCORED_V1,
        ATTRIBUTION,
        attribution_pb2.AttributionScored,
        lambda message: Attributed(message.attribution.inference, message.attribution.digest),
    )
    _check_scored(book, answers, scored)
    return scored


def _check_events(book: Book, logged: Sequence[str], completed: Sequence[Published[str]]) -> None:
    """Every answer in the write-ahead log reaches the event log, as one event."""
    in_log = Counter(each.kept for each in completed)
    book.saw(LOGGED, len(logged))
    for inference, count in Counter(logged).items():
        if count > 1:
            book.doubled(LOGGED, inference, f"is there {count} times")
        if inference not in in_log:
            book.waiting(LOGGED, inference, "is not in the event log yet")
    book.saw(EVENT, len(in_log))
    for inference, count in in_log.items():
        if count > 1:
            book.doubled(EVENT, inference, f"{count} events of different ids")


def _check_attributed(
    book: Book, answers: Sequence[Answer], consumers: Consumers, completed: Sequence[Published[str]]
) -> None:
    """Every answer whose event was handled is there, pending or scored; and there is no other."""
    book.saw(ATTRIBUTED, len(answers))
    known = {answer.inference for answer in answers}
    published = {each.kept for each in completed}
    for each in completed:
        if each.kept not in known and consumers.handled(ATTRIBUTION, INFERENCE_COMPLETED_V1, each):
            book.lost(ATTRIBUTED, each.kept, "its event took effect, but there is no such answer")
    kept_since = retention_start(INFERENCE_COMPLETED_V1.retention_hours)
    for answer in answers:
        if answer.pending:
            book.waiting(ATTRIBUTED, answer.inference, "is not scored yet")
        if answer.inference not in published and (answer.pending or answer.scored_s > kept_since):
            book.lost(ATTRIBUTED, answer.inference, "there is no event about it")


def _check_scored(book: Book, answers: Sequence[Answer], scored: Sequence[Published[Attributed]]) -> None:
    """Every scored answer's record is intact and was published in one event."""
    digests: Mapping[str, list[str]] = defaultdict(list)
    for each in scored:
        digests[each.kept.inference].append(each.kept.digest)
    kept_since = retention_start(ATTRIBUTION_SCORED_V1.retention_hours)
    known: set[str] = set()
    for answer in answers:
        if answer.pending:
            continue
        name = answer.inference
        known.add(name)
        book.saw(SCORED_EVENT, 1)
        book.saw(INTACT, 1)
        if answer.problems is not None:
            book.findings += answer.problems.findings
        if name in digests or answer.scored_s > kept_since:
            book.once(SCORED_EVENT, name, digests.get(name, []), "event")
        if any(digest != answer.digest for digest in digests.get(name, [])):
            book.lost(SCORED_EVENT, name, f"the event does not carry {answer.digest}")
    for inference in digests.keys() - known:
        book.lost(SCORED_EVENT, inference, "there is an event about it, but no such record")


def _check_record(book: Book, fact: AttributedAnswer) -> None:
    """The record has its digest, its shares are those kept beside it, and shares and the rest add up."""
    name = fact.inference
    if sha256_bytes(fact.record) != fact.digest:
        book.lost(INTACT, name, f"the record's digest is not {fact.digest}")
        return
    try:
        recorded = {
            str(share["contributor"]): index(share["ppm"]) for share in json.loads(fact.record)["shares"]
        }
    except (ValueError, KeyError, TypeError) as error:
        why = f"its digest is right, but it is no record: {type(error).__name__}: {error}"
        book.invalid(INTACT, name, why)
        return
    rows = {share.contributor: share.ppm for share in fact.shares}
    if recorded != rows:
        book.same(INTACT, name, len(rows), len(recorded), "share rows")
        if len(recorded) == len(rows):
            book.lost(INTACT, name, "the share rows are not those of the record")
    book.same(
        INTACT, name, sum(recorded.values()) + fact.unattributed_ppm, PPM, "shares and unattributed, ppm"
    )
