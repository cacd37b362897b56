"""The traces of answers, and the batch in which they meet.

A batch has many parents and a span has one. So sealing is a child of its answers' trace only when they have one in common;
otherwise it begins a trace of its own. Either way it links to its answers, and each answer's trace gets a span that links
to the batch: each leads to the other. Signing, sending and every later state belong to the batch's trace,
whose context is in its row. Work that is rolled back and done again leaves a span each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind

from chain_relay.store.tables import Batch, BatchState, ScoredAnswer
from servicekit.telemetry import traces as telemetry

_LINKS = 128
"""OpenTelemetry keeps no more of a span. The answers' own spans are not limited by it."""


@contextmanager
def sealing(answers: Sequence[ScoredAnswer]) -> Iterator[None]:
    """Around the sealing of these answers."""
    traced = [answer for answer in answers if answer.traceparent]
    causes = [answer.traceparent for answer in traced[:_LINKS]]
    asked_for = telemetry.current_traceparent()  # of the caller that flushes
    span = telemetry.tracer.start_as_current_span(
        "seal batch",
        context=_common(traced),
        links=telemetry.links_to([asked_for, *causes]),
        attributes={"openledger.batch.event_count": len(answers)},
    )
    with span as sealed:
        yield
        for answer in traced:
            _seal_answer(answer, sealed)


def _common(traced: Sequence[ScoredAnswer]) -> Context:
    """The answers' one trace, as its first answer has it; an empty context when they have several."""
    traces = {answer.traceparent.split("-")[1] for answer in traced}
    return telemetry.context_of(traced[0].traceparent) if len(traces) == 1 else Context()


def _seal_answer(answer: ScoredAnswer, batch: Span) -> None:
    context = telemetry.context_of(answer.traceparent)
    if trace.get_current_span(context).get_span_context().trace_flags.sampled:
        links = [Link(batch.get_span_context())]
        known = {"openledger.inference": answer.inference}
        telemetry.tracer.start_span("seal answer", context=context, links=links, attributes=known).end()


def batch_state(batch: Batch, state: BatchState) -> AbstractContextManager[Span]:
    """Around a batch's coming to a state: within the work that brings it there, else as a part of the batch's trace."""
    working = trace.get_current_span().get_span_context().is_valid
    return telemetry.tracer.start_as_current_span(
        f"batch {state.name.lower()}",
        context=None if working else telemetry.context_of(batch.traceparent),
        attributes={
            "openledger.batch.seq": batch.seq,
            "openledger.batch.root": "0x" + batch.root.hex(),
            "openledger.transaction.hash": batch.transaction_hash or "",
            "openledger.block.number": batch.block_number or 0,
        },
    )


def transaction(purpose: str) -> AbstractContextManager[Span]:
    """Around the making and sending of a transaction for a purpose."""
    return telemetry.tracer.start_as_current_span(
        f"submit {purpose.partition('/')[0]}", attributes={"openledger.transaction.purpose": purpose}
    )


def step(name: str, transaction_hash: str = "") -> AbstractContextManager[object]:
    """A step of a submission; nothing when a transaction is only sent again."""
    if not trace.get_current_span().is_recording():
        return nullcontext()
    known = {"openledger.transaction.hash": transaction_hash} if transaction_hash else {}
    return telemetry.tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=known)
