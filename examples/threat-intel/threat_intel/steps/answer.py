"""Step 4: held-out questions stream through gRPC and the OpenAI-compatible door, base and adapter in one batch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import grpc
import httpx
from openledger.inference.v1 import inference_pb2 as pb

from openledger_cli.up.health import serving
from servicekit.errors import Unavailable, from_rpc_error
from threat_intel.people import ANALYST
from threat_intel.steps.contribute import held_out_records
from threat_intel.telling import MODEL, Outcome, Telling

TRIES = 5
AT_ONCE = 8
"""Streams open at once: enough that base and adapter share batches."""


@dataclass(frozen=True)
class Answer:
    """One answer, and what the record says."""

    inference: str
    model: str
    question: str
    text: str
    expected: str
    door: str
    first_token_s: float
    duration_s: float
    output_tokens: int


def run(telling: Telling) -> Outcome:
    """Asks, streams, counts."""
    outcome = Outcome()
    _await_served(telling, telling.result("evaluate")["careful"])
    records = held_out_records(telling, telling.result("contribute")["snapshot"])
    scale = telling.scale
    base = f"baseModels/{scale.base_model}"
    asks: list[Callable[[], Answer]] = []
    for number in range(scale.questions + scale.base_questions + scale.http_questions):
        record = records[number % len(records)]
        if number < scale.http_questions:
            asks.append(lambda record=record: _by_http(telling, MODEL, record))  # type: ignore[misc]
        elif number < scale.http_questions + scale.base_questions:
            asks.append(lambda record=record: _by_grpc(telling, base, record))  # type: ignore[misc]
        else:
            asks.append(lambda record=record: _by_grpc(telling, MODEL, record))  # type: ignore[misc]
    asks = [ask for offset in range(7) for ask in asks[offset::7]]  # mixed, so that batches are
    begun = time.monotonic()
    answers: list[Answer] = []
    with telling.bar("answers", len(asks)) as bar, ThreadPoolExecutor(AT_ONCE) as pool:
        for answer in pool.map(lambda ask: _asked(telling, ask), asks):
            answers.append(answer)
            bar.at(len(answers), len(asks), f"{answer.text.strip()[:30]!r}")
    wall_s = time.monotonic() - begun
    by_model = [a for a in answers if a.model == MODEL]
    right = sum(a.text.strip() == a.expected for a in by_model)
    for answer in answers[:4]:
        telling.say(
            f"[dim]{answer.model} by {answer.door}:[/dim] {answer.question[:70]!r} "
            f"-> {answer.text.strip()!r} (is {answer.expected})"
        )
    firsts = sorted(a.first_token_s for a in answers)
    figures = outcome.figures
    figures.add("answers", len(answers), "answers", "counted")
    figures.add(
        "answers by the adapter with exactly the record's tactic",
        right,
        f"of {len(by_model)} answers",
        "counted, greedy decoding",
    )
    figures.add(
        "answer rate", round(len(answers) / wall_s, 2), "answers/s", f"timed, {AT_ONCE} streams at once"
    )
    figures.add("output rate", round(sum(a.output_tokens for a in answers) / wall_s, 1), "tokens/s", "timed")
    figures.add(
        "time to first token, median",
        round(firsts[len(firsts) // 2], 3),
        "s",
        f"timed by the client, n={len(firsts)}",
    )
    telling.say(
        f"{len(answers)} answers in {wall_s:.1f} s, {len(answers) / wall_s:.1f} answers/s; "
        f"{right} of {len(by_model)} by the adapter name the record's tactic exactly"
    )
    outcome.facts["answers"] = [asdict(answer) for answer in answers]
    return outcome


def _asked(telling: Telling, ask: Callable[[], Answer]) -> Answer:
    """One answer; asked again when the service went away before it was whole."""
    for left in reversed(range(TRIES)):
        try:
            return ask()
        except grpc.RpcError as error:
            if not isinstance(from_rpc_error(error), Unavailable) or not left:
                raise
        except (httpx.TransportError, Unavailable):
            if not left:
                raise
        _await_service(telling)
    raise AssertionError("unreachable: the last try returns or raises")


def _await_service(telling: Telling) -> None:
    for _ in range(120):
        if serving(telling.platform.doors["inference"]):
            return
        time.sleep(0.5)  # a poll of a public health door
    raise Unavailable("INFERENCE_DOWN", "the inference service does not come back; see the platform's log")


def _await_served(telling: Telling, version: str) -> None:
    """Waits until the promotion has reached the inference service. Raises Unavailable after two minutes."""
    stub = telling.as_(ANALYST).inference
    for _ in range(600):
        served = stub.ListServedModels(pb.ListServedModelsRequest(), timeout=30).models
        if any(model.name == version and model.is_default for model in served):
            return
        time.sleep(0.2)  # a poll of a public door: a client has no other way to know
    raise Unavailable("NOT_SERVED", f"{version} was promoted but is not served after 120 s")


def _prompt(record: dict[str, str]) -> str:
    return f"Report: {record['text']}\nTactic:"


def _by_grpc(telling: Telling, model: str, record: dict[str, str]) -> Answer:
    request = pb.GenerateRequest(
        model=model, prompt=_prompt(record), sampling=pb.SamplingParameters(max_output_tokens=12, stop=["\n"])
    )
    begun, first, inference, text = time.monotonic(), 0.0, "", ""
    finished = pb.GenerateResponse.Finished()
    for response in telling.as_(ANALYST).inference.Generate(request, timeout=120):
        if response.HasField("started"):
            inference = response.started.inference
        elif response.HasField("delta"):
            first = first or time.monotonic() - begun
            text += response.delta.text
        elif response.HasField("finished"):
            finished = response.finished
    duration = time.monotonic() - begun
    return Answer(
        inference,
        model,
        record["text"],
        text,
        record["tactic"],
        "gRPC",
        first or duration,
        duration,
        finished.usage.output_tokens,
    )


def _by_http(telling: Telling, model: str, record: dict[str, str]) -> Answer:
    body = {
        "model": model,
        "prompt": _prompt(record),
        "max_tokens": 12,
        "temperature": 0,
        "stop": ["\n"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begun, first, text, tokens = time.monotonic(), 0.0, "", 0
    headers = {"Authorization": f"Bearer {telling.as_(ANALYST).bearer()}"}
    url = f"{telling.platform.doors['openai']}/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=120, trust_env=False) as response:
        if response.status_code != 200:
            raise Unavailable(
                "HTTP_DOOR", f"{url} answered {response.status_code}: {response.read()[:300]!r}"
            )
        inference = response.headers["x-openledger-inference-id"]
        for line in response.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
            for choice in event.get("choices", []):
                first = first or time.monotonic() - begun
                text += choice.get("text", "")
    duration = time.monotonic() - begun
    name = inference if inference.startswith("inferences/") else f"inferences/{inference}"
    return Answer(
        name, model, record["text"], text, record["tactic"], "HTTP", first or duration, duration, tokens
    )
