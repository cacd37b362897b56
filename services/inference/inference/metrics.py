"""Every metric of the inference service."""

from __future__ import annotations

from collections.abc import Callable

from inference.answer import Answer
from servicekit.metrics import Resource, counter, gauge, histogram, saturation

_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_TIME_TO_FIRST_TOKEN = histogram(
    "openledger_inference_time_to_first_token_seconds",
    "From a question's arrival to its first token, waiting included.",
    buckets=_LATENCY_S,
)
_INTER_TOKEN = histogram(
    "openledger_inference_inter_token_seconds",
    "Wall time of one step of the batch: what a running answer waits for its next token.",
    buckets=_LATENCY_S,
)
_PREFILL = histogram(
    "openledger_inference_prefill_seconds",
    "Wall time of reading newly admitted prompts.",
    buckets=_LATENCY_S,
)
_TOKENS = counter(
    "openledger_inference_tokens_total",
    "Tokens read (input) and made (output).",
    ("direction",),
)
_ANSWERS = counter("openledger_inference_answers_total", "Finished answers by why they ended.", ("finish",))
_BATCH_ROWS = histogram(
    "openledger_inference_batch_rows",
    "Answers computed together in one step.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
_QUEUE_DEPTH = gauge("openledger_inference_queue_depth", "Questions waiting for a place in the batch.")
_ADAPTERS = gauge("openledger_inference_adapters_loaded", "Adapters resident in slots.")
_UNRECORDED = counter(
    "openledger_inference_unrecorded_answers_total",
    "Answers whose event could not be written to the write-ahead log: each is one that will not be paid for.",
)

_HTTP_REQUESTS = counter(
    "openledger_inference_http_requests_total",
    "Requests at the OpenAI-compatible door, by route and HTTP status.",
    ("route", "status"),
)
_HTTP_SECONDS = histogram(
    "openledger_inference_http_request_duration_seconds",
    "From a request at the OpenAI-compatible door to the beginning of its answer.",
    ("route",),
)


def http_answered(route: str, status: int, seconds: float) -> None:
    """A request's answer has begun."""
    _HTTP_REQUESTS.labels(route, str(status)).inc()
    _HTTP_SECONDS.labels(route).observe(seconds)


def bounded(resource: Resource, used: Callable[[], int], limit: int) -> None:
    """The engine has only so much of a resource."""
    saturation(resource, used, limit)


def queue_depth(questions: int) -> None:
    """The queue changed."""
    _QUEUE_DEPTH.set(questions)


def prefill(tokens: int, seconds: float) -> None:
    """Prompts were read."""
    _TOKENS.labels("input").inc(tokens)
    _PREFILL.observe(seconds)


def step(rows: int, seconds: float) -> None:
    """The batch made one step."""
    _BATCH_ROWS.observe(rows)
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
