"""Checks of one service, by what its endpoints show."""

from __future__ import annotations

import time
from collections.abc import Iterator

from openledger_client.services import CHAIN_RELAY
from openledger_ops.doctor.finding import Finding, ok, problem, warning
from openledger_ops.doctor.observation import Observation
from openledger_ops.doctor.samples import Samples

LAG_RECORDS = 1000
"""A consumer that is further behind is reported; fewer records are handled within seconds."""
OUTBOX_S = 30.0
"""An event that waits longer in an outbox has a reason: the event log is unreachable, or the publisher has failed."""
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
"""Part of a bounded resource from which on it counts as full."""
SKEW_S = 5.0
SKEW_REFUSED_S = 25.0
"""Tokens have 30 s of leeway: a clock that is further off refuses valid tokens or accepts expired ones."""

_REMEDIES = {
    "development_issuer": "set OPENLEDGER_AUTH_MODE=oidc and OPENLEDGER_AUTH_ISSUER before others use it",
    "plain_text": "set OPENLEDGER_TLS_CERT and OPENLEDGER_TLS_KEY before other machines reach it",
    "unknown_variable": "correct or remove it: what it was meant to change has its default",
}


def service_findings(seen: Observation) -> Iterator[Finding]:
    """Yields all findings about one service; at least one."""
    yield _reachable(seen)
    if seen.unread:
        yield problem(
            seen.service, "operations endpoint", f"{seen.operations} does not answer: {seen.unread}",
            "free or open its metrics port (OPENLEDGER_METRICS_PORT)",
        )  # fmt: skip
    elif seen.address and not seen.operations:
        yield warning(
            seen.service, "operations endpoint", "not checked: the address of /metrics is not known",
            f"set OPENLEDGER_{seen.service.upper()}_METRICS_ADDRESS=host:port",
        )  # fmt: skip
    if seen.ready is not None:
        yield from _readiness(seen)
    if seen.skew_s is not None:
        yield _clock(seen.service, seen.skew_s)
    if seen.samples is not None:
        yield from _backlogs(seen.service, seen.samples)
        yield from _references(seen.service, seen.samples)
        yield from _halted(seen.service, seen.samples)
        yield from _saturated(seen.service, seen.samples)
        yield from _chain(seen.samples)


def _reachable(seen: Observation) -> Finding:
    if not seen.address:
        return problem(seen.service, "up", seen.absent, "start it, or name its address")
    if not seen.serving:
        return problem(
            seen.service, "up", f"{seen.address} does not answer SERVING",
            "read its log; `openledger up` restarts it, and your own supervisor should",
        )  # fmt: skip
    return ok(seen.service, "up", f"{seen.address} serves")


def _readiness(seen: Observation) -> Iterator[Finding]:
    assert seen.ready is not None
    if seen.ready.get("status") != "ok":
        reason = str(seen.ready.get("reason", "no reason given"))
        yield problem(seen.service, "ready", reason, "read its log and check what it needs")
    for each in seen.ready.get("loops", []):
        loop, state, on = each.get("loop"), each.get("state"), each.get("on")
        report = problem if state == "stuck" else warning
        detail = f"{loop} is {state} for {float(each.get('for_s', 0.0)):,.0f} s: {on}"
        yield report(
            seen.service, "loops", detail, "check what it waits on; it continues by itself when that answers"
        )
    for each in seen.ready.get("warnings", []):
        kind = str(each.get("kind"))
        yield warning(seen.service, kind, str(each.get("message")), _REMEDIES.get(kind, ""))


def _clock(service: str, skew_s: float) -> Finding:
    detail = f"{skew_s:+.0f} s from this machine's"
    if abs(skew_s) <= SKEW_S:
        return ok(service, "clock", detail)
    report = problem if abs(skew_s) > SKEW_REFUSED_S else warning
    remedy = "synchronise both machines by NTP: tokens and deadlines depend on their clocks"
    return report(service, "clock", detail, remedy)


# metric, limit above which it is a warning, check, how a value is worded, what to do
_BACKLOGS: tuple[tuple[str, float, str, str, str], ...] = (
    ("openledger_outbox_oldest_seconds", OUTBOX_S, "outbox", "the oldest unpublished event is {:.0f} s old",
     "check whether the event log answers (openledger_outbox_failures_total, the service's log)"),
    ("openledger_wal_unsent_bytes", WAL_BYTES, "write-ahead log", "{:,.0f} bytes of answers are not yet in the event log",
     "check whether the event log answers; answers are safe on disk until it does, and refused when the log is full"),
    ("openledger_attribution_answers_pending", PENDING_ANSWERS, "scoring", "{:.0f} answers wait for their attribution",
     "see `openledger attribution indexes`: an index may be missing; otherwise run more attribution processes"),
    ("openledger_relay_uncommitted_batches", UNCOMMITTED_BATCHES, "settlement", "{:.0f} sealed batches are not on the chain",
     "read the relay's log: the chain, the fee cap or the signer's balance may be the reason"),
    ("openledger_relay_oldest_waiting_seconds", WAITING_S, "sealing", "an answer has been in no batch for {:.0f} s",
     "read the relay's log; `openledger settle flush` seals now"),
)  # fmt: skip


def _backlogs(service: str, samples: Samples) -> Iterator[Finding]:
    for metric, limit, check, wording, remedy in _BACKLOGS:
        value = samples.value(metric)
        if value is not None:
            yield _judged(value > limit, warning(service, check, wording.format(value), remedy))
    lags: dict[tuple[str, str], float] = {}
    for sample in samples.of("openledger_consumer_lag_records"):
        consumer = sample.labels["group"], sample.labels["topic"]
        lags[consumer] = lags.get(consumer, 0.0) + sample.value
    for (group, topic), lag in sorted(lags.items()):
        detail = f"{group} is {lag:,.0f} records behind in {topic}"
        remedy = "read its log for retries; run more processes"
        yield _judged(lag > LAG_RECORDS, warning(service, "lag", detail, remedy))


def _references(service: str, samples: Samples) -> Iterator[Finding]:
    """Whether the object store knows what this service needs: garbage collection stops at the oldest list."""
    for sample in samples.of("openledger_object_references_published_timestamp_seconds"):
        age_s = time.time() - sample.value
        detail = (
            f"its list of needed objects is {age_s:,.0f} s old"
            if sample.value
            else "it has never published which objects it needs"
        )
        remedy = "read its log: the object store or its database does not answer; nothing newer is collected until they do"
        yield _judged(age_s > REFERENCES_S, warning(service, "object references", detail, remedy))


def _halted(service: str, samples: Samples) -> Iterator[Finding]:
    for sample in samples.of("openledger_consumer_halted"):
        if sample.value:
            yield problem(
                service, "halted", f"consumer {sample.labels['group']} has halted: too many records were invalid",
                "read the dead letters; fix the consumer or the producer; restart the service",
            )  # fmt: skip


def _saturated(service: str, samples: Samples) -> Iterator[Finding]:
    for sample in samples.of("openledger_saturation_ratio"):
        detail = f"{sample.labels['resource']} {sample.value:.0%} in use"
        remedy = "raise its limit or run more processes"
        yield _judged(sample.value >= FULL, warning(service, "saturation", detail, remedy))


def _chain(samples: Samples) -> Iterator[Finding]:
    """What the relay reports about the chain that it writes to."""
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
        remedy = f"check whether the node at {CHAIN_RELAY.variable('rpc_url')} answers"
        yield problem("chain", "reached", detail, remedy)
        return
    head = seen - (samples.value("openledger_relay_chain_head_timestamp_seconds") or 0.0)
    detail = f"its head was {head:,.0f} s old when last seen"
    remedy = "the node may have stopped following the chain"
    yield _judged(head > CHAIN_HEAD_S, warning("chain", "head", detail, remedy))
    finalized = samples.value("openledger_relay_chain_finalized_timestamp_seconds") or 0.0
    detail = (
        f"its finalized block is {now - finalized:,.0f} s old"
        if finalized
        else "it has no finalized block yet"
    )
    remedy = "batches stay below `final` until it advances"
    yield _judged(now - finalized > CHAIN_FINALITY_S, warning("chain", "finality", detail, remedy))


def _judged(bad: bool, finding: Finding) -> Finding:
    """Returns the finding when it is bad, and otherwise the same without level and remedy."""
    return finding if bad else ok(finding.about, finding.check, finding.detail)
