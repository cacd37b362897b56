"""Every metric of the inference service."""

from __future__ import annotations

from collections.abc import Callable

from inference.answer import Answer
from servicekit.telemetry.metrics import Resource, counter, gauge, histogram, saturation

_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_TIME_TO_FIRST_TOKEN = histogram(
    "openledger_inference_time_to_first_token_seconds",
    "From a request's arrival to its first token, waiting included.",
    buckets=_LATENCY_S,
)
_INTER_TOKEN = histogram(
    "openledger_inference_inter_token_seconds",
    "Wall time of one step of the batch: the wait of a running answer for its next token.",
    buckets=_LATENCY_S,
)
_PREFILL = histogram(
    "openledger_inference_prefill_seconds",
    "Wall time of processing newly admitted prompts.",
    buckets=_LATENCY_S,
)
_TOKENS = counter(
    "openledger_inference_tokens_total",
    "Prompt tokens processed (input) and tokens generated (output).",
    ("direction",),
)
_ANSWERS = counter(
    "openledger_inference_answers_total", "Finished answers by the reason they ended.", ("finish",)
)
_BATCH_SEQUENCES = histogram(
    "openledger_inference_batch_sequences",
    "Answers computed together in one step.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
_QUEUE_DEPTH = gauge("openledger_inference_queue_depth", "Requests waiting to enter the batch.")
_ADAPTERS = gauge("openledger_inference_adapters_loaded", "Adapters loaded into slots.")
_UNRECORDED = counter(
    "openledger_inference_unrecorded_answers_total",
    "Answers whose event could not be written to the write-ahead log: none of them is paid for.",
)


def bounded(resource: Resource, used: Callable[[], int], limit: int) -> None:
    """Publishes how much of a bounded resource is in use."""
    saturation(resource, used, limit)


def queue_depth(requests: int) -> None:
    """The queue changed."""
    _QUEUE_DEPTH.set(requests)


def prefill(tokens: int, seconds: float) -> None:
    """Prompts were processed."""
    _TOKENS.labels("input").inc(tokens)
    _PREFILL.observe(seconds)


def step(rows: int, seconds: float) -> None:
    """The batch made one step."""
    _BATCH_SEQUENCES.observe(rows)
    _INTER_TOKEN.observe(seconds)


def answered(answer: Answer) -> None:
    """An answer ended."""
    _ANSWERS.labels(answer.finish.value).inc()
    _TOKENS.labels("output").inc(len(answer.output_tokens))
    _TIME_TO_FIRST_TOKEN.observe(answer.time_to_first_token_s)


def adapters_loaded(adapters: int) -> None:
    """The set of resident adapters changed."""
    _ADAPTERS.set(adapters)


def unrecorded() -> None:
    """An answer could not be recorded."""
    _UNRECORDED.inc()
