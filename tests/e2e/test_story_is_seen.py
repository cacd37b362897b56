"""Each answer of the story can be followed from its question to its commitment, in traces and logs; the doctor is right."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from openledger_testing.promtool import problems
from openledger_testing.trace_collector import Span

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.story]

GENERATE = "openledger.inference.v1.InferenceService/Generate"
CLIENT, INFERENCE, ATTRIBUTION, RELAY = (
    f"openledger-{name}" for name in ("threat-intel", "inference", "attribution", "chain_relay")
)

# From a question on, each step with its service and the step that it is a child of.
PATH = {
    (CLIENT, f"CLIENT {GENERATE}"): None,
    (INFERENCE, f"SERVER {GENERATE}"): (CLIENT, f"CLIENT {GENERATE}"),
    (INFERENCE, "PRODUCER send inference.completed.v1"): (INFERENCE, f"SERVER {GENERATE}"),
    (ATTRIBUTION, "CONSUMER process inference.completed.v1"): (INFERENCE, f"SERVER {GENERATE}"),
    (ATTRIBUTION, "INTERNAL score answer"): (ATTRIBUTION, "CONSUMER process inference.completed.v1"),
    (ATTRIBUTION, "PRODUCER send attribution.scored.v1"): (ATTRIBUTION, "INTERNAL score answer"),
    (RELAY, "CONSUMER process attribution.scored.v1"): (ATTRIBUTION, "INTERNAL score answer"),
}


def step(span: Span) -> tuple[str, str]:
    return span.service, f"{span.kind} {span.name}"


def by_trace(spans: Iterable[Span]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        found[span.trace_id].append(span)
    return found


def answers(spans: list[Span]) -> dict[str, list[Span]]:
    """The spans of each trace in which an answer was scored, by trace id."""
    scored = {span.trace_id for span in spans if span.name == "score answer" and not span.failed}
    return {trace: of for trace, of in by_trace(spans).items() if trace in scored}


def test_every_answer_of_the_story_has_a_trace(spans: list[Span], steps: dict[str, dict[str, Any]]) -> None:
    asked = {answer["inference"] for answer in steps["answer"]["facts"]["answers"]}
    scored = {span.attributes["openledger.inference"] for span in spans if span.name == "score answer"}
    assert asked <= scored
    assert len(answers(spans)) >= len(asked)


def test_a_question_by_grpc_is_one_trace_through_four_processes(spans: list[Span]) -> None:
    asked = {span.trace_id for span in spans if step(span) == (CLIENT, f"CLIENT {GENERATE}")}
    assert len(asked) >= 8
    for trace in asked:
        by_id = {span.span_id: span for span in by_trace(spans)[trace]}
        steps_of = {step(span): span for span in by_id.values()}
        for place, parent in PATH.items():
            assert place in steps_of, (trace, place, sorted(steps_of))
            above = by_id.get(steps_of[place].parent_id)
            assert (step(above) if above else None) == parent, place
        answered = steps_of[INFERENCE, f"SERVER {GENERATE}"].attributes
        scored = steps_of[ATTRIBUTION, "INTERNAL score answer"].attributes
        assert answered["openledger.inference"] == scored["openledger.inference"]
        assert {"gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"} <= set(answered)


def test_no_answer_s_trace_has_a_hole(spans: list[Span]) -> None:
    known = {span.span_id for span in spans}
    for trace in answers(spans).values():
        assert [span.name for span in trace if span.parent_id and span.parent_id not in known] == []


def test_each_answer_and_its_batch_name_each_other(spans: list[Span]) -> None:
    sealings = [span for span in spans if span.name == "seal batch" and not span.failed]
    linked = {trace for sealing in sealings for trace, _ in sealing.links}
    batches = {(span.trace_id, span.span_id) for span in sealings}
    for trace, of in answers(spans).items():
        assert trace in linked
        in_batches = [link for span in of if span.name == "seal answer" for link in span.links]
        assert in_batches, trace
        assert set(in_batches) <= batches


def test_a_batch_s_trace_shows_its_commitment(spans: list[Span], steps: dict[str, dict[str, Any]]) -> None:
    committed = [span for span in spans if span.name == "batch committed"]
    assert len(committed) >= len(steps["settle"]["facts"]["batches"])
    for span in committed:
        trace = {other.name: other for other in by_trace(spans)[span.trace_id]}
        assert {"seal batch", "batch sealed", "submit commit", "sign transaction", "send transaction"} <= set(
            trace
        )
        assert trace["batch submitted"].parent_id == trace["submit commit"].span_id
        assert trace["submit commit"].parent_id == trace["seal batch"].span_id
        assert (
            span.attributes["openledger.transaction.hash"]
            == trace["send transaction"].attributes["openledger.transaction.hash"]
        )
        assert (
            span.attributes["openledger.batch.root"]
            == trace["batch sealed"].attributes["openledger.batch.root"]
        )


def test_an_answer_s_trace_id_is_in_the_logs_of_every_service_it_passed(
    demo: Path, spans: list[Span]
) -> None:
    logged: dict[str, set[str]] = defaultdict(set)
    for line in (demo / "state" / "logs" / "platform.log").read_text(errors="replace").splitlines():
        if line.startswith("{"):
            entry = json.loads(line)
            logged[entry.get("service", "")].add(entry.get("trace_id", ""))
    for service in ("inference", "attribution", "chain_relay"):
        assert set(answers(spans)) <= logged[service], service


# What OpenTelemetry's semantic conventions require of a kind of span.
REQUIRED = {
    "rpc": {"rpc.system.name", "rpc.method", "rpc.response.status_code"},
    "messaging": {
        "messaging.system",
        "messaging.operation.name",
        "messaging.operation.type",
        "messaging.destination.name",
    },
}


def test_spans_of_calls_and_events_follow_the_semantic_conventions(spans: list[Span]) -> None:
    seen = set()
    for span in spans:
        area = (
            "messaging"
            if span.kind in ("PRODUCER", "CONSUMER")
            else "rpc"
            if span.name.startswith("openledger.")
            else ""
        )
        if area:
            seen.add((area, span.kind))
            assert REQUIRED[area] <= set(span.attributes), span
        if area == "messaging":
            operation, _, topic = span.name.partition(" ")
            assert span.attributes["messaging.operation.name"] == operation
            assert span.attributes["messaging.destination.name"] == topic
            assert span.attributes["messaging.message.id"]
    assert seen == {
        ("rpc", "CLIENT"),
        ("rpc", "SERVER"),
        ("messaging", "PRODUCER"),
        ("messaging", "CONSUMER"),
    }


def test_nothing_that_was_asked_or_said_is_in_a_trace(
    spans: list[Span], steps: dict[str, dict[str, Any]]
) -> None:
    recorded = json.dumps([span.attributes for span in spans])
    texts = [answer[what] for answer in steps["answer"]["facts"]["answers"] for what in ("question", "text")]
    long_enough = [text for text in texts if len(text) > 20]  # a random model may say "a"
    assert long_enough
    for text in long_enough:
        assert json.dumps(text)[1:-1] not in recorded


def test_the_doctor_finds_the_whole_platform_well_but_for_what_development_is(demo: Path) -> None:
    doctor = json.loads((demo / "doctor.json").read_text())
    findings = json.loads(doctor["said"])["findings"]
    bad = {(finding["about"], finding["check"]) for finding in findings if finding["level"] != "ok"}
    services = ("datanet", "trainer", "inference", "attribution", "chain_relay")
    asked_for = {(service, what) for service in services for what in ("development_issuer", "plain_text")}
    assert (
        bad - {("machine", "disk")} == asked_for
    )  # how full this machine's disk is, is not the platform's doing
    assert doctor["code"] == 2 or ("machine", "disk") in bad
    well = {(finding["about"], finding["check"]) for finding in findings if finding["level"] == "ok"}
    assert {(service, "up") for service in services} <= well
    assert {
        ("chain", "node"),
        ("chain", "contracts"),
        ("chain", "head"),
        ("ray", "reached"),
        ("trainer", "base model"),
    } <= well
    assert {("inference", "write-ahead log"), ("attribution", "lag"), ("chain_relay", "settlement")} <= well


def test_what_running_services_expose_is_named_as_prometheus_asks(demo: Path) -> None:
    pages = {file.stem: file.read_text() for file in demo.glob("*.metrics")}
    assert set(pages) == {"datanet", "trainer", "inference", "attribution", "chain_relay"}
    for service, page in pages.items():
        assert problems(page) == [], service
        assert 'openledger_requests_total{code="OK"' in page
