"""What is wrong with a service, told by one look at its doors."""

from __future__ import annotations

import time
from collections.abc import Iterator

from openledger_cli.doctor.finding import Finding, Level
from openledger_cli.doctor.samples import Samples
from openledger_cli.doctor.view import ServiceView

LAG_RECORDS = 1000
"""A consumer further behind than this is behind; fewer are caught up within seconds."""
OUTBOX_S = 30.0
"""An event that waits longer in an outbox has a reason: the event log is away, or the publisher is."""
WAL_BYTES = 1 << 20
"""Some 300 answers of unsent write-ahead log."""
PENDING_ANSWERS = 200
UNCOMMITTED_BATCHES = 3
WAITING_S = 600.0
"""An answer that is in no batch for longer: sealing has stopped."""
REFERENCES_S = 1800.0
"""Services publish every 5 minutes what they need of the object store."""
CHAIN_SEEN_S = 60.0
CHAIN_HEAD_S = 120.0
CHAIN_FINALITY_S = 3600.0
FULL = 0.9
"""Part of a bounded resource from which on it is as good as full."""
SKEW_S = 5.0
SKEW_REFUSED_S = 25.0
"""Tokens have 30 s of leeway: a clock further off refuses good ones or takes expired ones."""

_REMEDIES = {
    "development_issuer": "set OPENLEDGER_AUTH_MODE=oidc and OPENLEDGER_AUTH_ISSUER before others use it",
    "plain_text": "set OPENLEDGER_TLS_CERT and OPENLEDGER_TLS_KEY before other machines reach it",
    "unknown_variable": "correct or remove it: whatever it was meant to change is at its default",
}


def service_findings(view: ServiceView) -> Iterator[Finding]:
    """All findings of one service; at least one."""
    yield _reachable(view)
    if view.unseen:
        yield Finding(
            "problem", view.service, "operations door", f"{view.operations} does not answer: {view.unseen}",
            "free or open its metrics port (OPENLEDGER_METRICS_PORT)",
        )  # fmt: skip
    elif view.address and not view.operations:
        yield Finding(
            "warning", view.service, "operations door", "the address of /metrics is not known, so not looked at",
            f"set OPENLEDGER_{view.service.upper()}_METRICS_ADDRESS=host:port",
        )  # fmt: skip
    if view.ready is not None:
        yield from _readiness(view)
    if view.skew_s is not None:
        yield _clock(view.service, view.skew_s)
    if view.samples is not None:
        yield from _backlogs(view.service, view.samples)
        yield from _references(view.service, view.samples)
        yield from _halted(view.service, view.samples)
        yield from _saturated(view.service, view.samples)
        yield from _chain(view.service, view.samples)


def _reachable(view: ServiceView) -> Finding:
    if not view.address:
        return Finding("problem", view.service, "up", view.absent, "start it, or name its address")
    if not view.serving:
        return Finding(
            "problem", view.service, "up", f"{view.address} does not say SERVING",
            "look at its log; `openledger up` restarts it, a supervisor of yours should too",
        )  # fmt: skip
    return Finding("ok", view.service, "up", f"{view.address} serves")


def _readiness(view: ServiceView) -> Iterator[Finding]:
    assert view.ready is not None
    if view.ready.get("status") != "ok":
        reason = str(view.ready.get("reason", "no reason given"))
        yield Finding("problem", view.service, "ready", reason, "look at its log and at what it needs")
    for warning in view.ready.get("warnings", []):
        kind = str(warning.get("kind"))
        yield Finding("warning", view.service, kind, str(warning.get("message")), _REMEDIES.get(kind, ""))


def _clock(service: str, skew_s: float) -> Finding:
    level: Level = "ok"
    if abs(skew_s) > SKEW_S:
        level = "problem" if abs(skew_s) > SKEW_REFUSED_S else "warning"
    remedy = (
        "" if level == "ok" else "let both machines keep their time by NTP: tokens and deadlines depend on it"
    )
    return Finding(level, service, "clock", f"{skew_s:+.0f} s from this machine's", remedy)


# metric, from when on it is a warning, what it is called, how a value is told, what to do
_BACKLOGS: tuple[tuple[str, float, str, str, str], ...] = (
    ("openledger_outbox_oldest_seconds", OUTBOX_S, "outbox", "the oldest unpublished event is {:.0f} s old",
     "see whether the event log answers (openledger_outbox_failures_total, the service's log)"),
    ("openledger_wal_unsent_bytes", WAL_BYTES, "write-ahead log", "{:,.0f} bytes of answers are not yet in the event log",
     "see whether the event log answers; answers are safe on disk until it does, and refused when the log is full"),
    ("openledger_attribution_answers_pending", PENDING_ANSWERS, "scoring", "{:.0f} answers wait for their attribution",
     "see `openledger attribution indexes`: an index may be missing; else run more attribution processes"),
    ("openledger_relay_uncommitted_batches", UNCOMMITTED_BATCHES, "settlement", "{:.0f} sealed batches are not on the chain",
     "see the relay's log: the chain, its fee cap or the signer's balance may be the reason"),
    ("openledger_relay_oldest_waiting_seconds", WAITING_S, "sealing", "an answer has been in no batch for {:.0f} s",
     "see the relay's log; `openledger settle flush` seals now"),
)  # fmt: skip


def _backlogs(service: str, samples: Samples) -> Iterator[Finding]:
    for metric, limit, check, told, remedy in _BACKLOGS:
        value = samples.value(metric)
        if value is not None:
            yield _judged(service, check, value > limit, told.format(value), remedy)
    lags: dict[tuple[str, str], float] = {}
    for sample in samples.of("openledger_consumer_lag_records"):
        place = sample.labels["group"], sample.labels["topic"]
        lags[place] = lags.get(place, 0.0) + sample.value
    for (group, topic), lag in sorted(lags.items()):
        detail = f"{group} is {lag:,.0f} records behind in {topic}"
        yield _judged(
            service, "lag", lag > LAG_RECORDS, detail, "see its log for retries; run more processes"
        )


def _references(service: str, samples: Samples) -> Iterator[Finding]:
    """Whether the object store knows what this service needs: garbage is collected up to the oldest list only."""
    for sample in samples.of("openledger_object_references_published_timestamp_seconds"):
        age_s = time.time() - sample.value
        detail = (
            f"its list of needed objects is {age_s:,.0f} s old"
            if sample.value
            else "it has never said what it needs"
        )
        yield _judged(
            service, "object references", age_s > REFERENCES_S, detail,
            "see its log: the object store or its database does not answer; nothing newer is collected until they do",
        )  # fmt: skip


def _halted(service: str, samples: Samples) -> Iterator[Finding]:
    for sample in samples.of("openledger_consumer_halted"):
        if sample.value:
            yield Finding(
                "problem", service, "halted", f"consumer {sample.labels['group']} has halted: too many records were invalid",
                "look at the dead letters; mend the consumer or the producer; start the service anew",
            )  # fmt: skip


def _saturated(service: str, samples: Samples) -> Iterator[Finding]:
    for sample in samples.of("openledger_saturation_ratio"):
        detail = f"{sample.labels['resource']} {sample.value:.0%} in use"
        yield _judged(
            service, "saturation", sample.value >= FULL, detail, "raise its bound or run more processes"
        )


def _chain(service: str, samples: Samples) -> Iterator[Finding]:
    """What the relay says of the chain it writes to."""
    seen = samples.value("openledger_relay_chain_seen_timestamp_seconds")
    if seen is None:
        return
    now = time.time()
    if now - seen > CHAIN_SEEN_S:
        detail = (
            f"the relay has not reached it for {now - seen:,.0f} s"
            if seen
            else "the relay has never reached it"
        )
        yield Finding(
            "problem",
            "chain",
            "reached",
            detail,
            "see whether the node at OPENLEDGER_CHAIN_RELAY_RPC_URL answers",
        )
        return
    head = seen - (samples.value("openledger_relay_chain_head_timestamp_seconds") or 0.0)
    yield _judged(
        "chain",
        "head",
        head > CHAIN_HEAD_S,
        f"its head was {head:,.0f} s old when last seen",
        "the node may have stopped following",
    )
    finalized = samples.value("openledger_relay_chain_finalized_timestamp_seconds") or 0.0
    age = (
        f"its finalized block is {now - finalized:,.0f} s old"
        if finalized
        else "it has no finalized block yet"
    )
    yield _judged(
        "chain",
        "finality",
        now - finalized > CHAIN_FINALITY_S,
        age,
        "batches stay below `final` until it moves",
    )


def _judged(about: str, check: str, bad: bool, detail: str, remedy: str) -> Finding:
    return Finding("warning", about, check, detail, remedy) if bad else Finding("ok", about, check, detail)
