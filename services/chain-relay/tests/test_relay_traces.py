"""An answer's trace continues to its commitment, whenever that is and in any process."""

from __future__ import annotations

from pathlib import Path

import pytest

from openledger_testing.recorded_spans import named, recording, trace_id, trace_of, traceparent
from openledger_testing.relay_rig import FakeRig, Rig
from servicekit.telemetry import traces as telemetry

COMMITMENT = [
    "batch sealed",
    "submit commit",
    "sign transaction",
    "send transaction",
    "batch submitted",
    "batch committed",
]


@pytest.fixture
def rig(tmp_path: Path) -> FakeRig:
    return FakeRig(tmp_path)


def feed(rig: Rig, *traceparents: str) -> None:
    for each in traceparents:
        with telemetry.within(each):
            rig.feed(1)


def commit(rig: Rig) -> None:
    rig.relay.step()
    rig.mine()


def test_a_single_answer_and_its_commitment_are_one_trace(rig: FakeRig) -> None:
    asked = traceparent()
    with recording() as spans:
        feed(rig, asked)
        rig.relay.seal_now()
        rig.restart()  # another process continues: it knows the trace from the row
        commit(rig)
        for name in ["seal batch", "seal answer", *COMMITMENT]:
            assert [trace_id(span) for span in named(spans, name)] == [trace_of(asked)], name


def test_answers_of_several_traces_meet_in_a_batch_that_links_to_each_and_each_to_it(rig: FakeRig) -> None:
    asked = [traceparent() for _ in range(3)]
    with recording() as spans, telemetry.within(traceparent()):
        feed(rig, *asked)
        with telemetry.tracer.start_as_current_span("a client that flushes"):
            rig.relay.seal_now()
        commit(rig)
        answers = named(spans, "seal answer")
        assert [trace_id(span) for span in answers] == list(map(trace_of, asked))
        (batch,) = {link.context.trace_id for span in answers for link in span.links}
        assert batch not in map(trace_of, asked)


def test_a_batch_of_one_trace_s_answers_is_sealed_in_that_trace(rig: FakeRig) -> None:
    asked = traceparent()
    with recording() as spans:
        feed(rig, asked, asked)
        rig.relay.seal_now()
        (sealing,) = named(spans, "seal batch")
        assert trace_id(sealing) == trace_of(asked)
        assert [link.context.trace_id for link in sealing.links] == [trace_of(asked)]


def test_a_reorg_and_its_repair_stand_in_the_same_trace(rig: FakeRig) -> None:
    asked = traceparent()
    with recording() as spans:
        feed(rig, asked)
        rig.relay.seal_now()
        commit(rig)
        rig.reorg(1)
        for _ in range(3):
            commit(rig)
        assert {trace_id(span) for span in named(spans, "batch committed")} == {trace_of(asked)}
        assert len(named(spans, "batch sealed")) == 2  # moved back


def test_an_answer_without_a_trace_is_settled_all_the_same(rig: FakeRig) -> None:
    with recording():
        rig.feed(2)
        rig.relay.seal_now()
        commit(rig)
    assert rig.commitments() == [0]
