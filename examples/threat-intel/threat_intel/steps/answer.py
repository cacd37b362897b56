"""Step 4: held-out questions stream through gRPC and the OpenAI-compatible API, base and adapter in one batch."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import httpx
from openledger.inference.v1 import inference_pb2 as pb

from openledger_client.errors import Unavailable
from openledger_client.services import INFERENCE
from threat_intel.people import ANALYST
from threat_intel.run import MODEL, Outcome, Run
from threat_intel.steps.contribute import held_out_records

ATTEMPTS = 5
AT_ONCE = 8
ANSWER_S = 120.0
"""Streams open at once: enough that base and adapter share batches."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer, and what the record says."""

    inference: str
    model: str
    question: str
    text: str
    expected: str
    api: str
    first_token_s: float
    duration_s: float
    output_tokens: int


def execute(run: Run) -> Outcome:
    """Asks, streams, counts."""
    outcome = Outcome()
    _await_served(run, run.result("evaluate")["careful"])
    records = held_out_records(run, run.result("contribute")["snapshot"])
    scale = run.scale
    base = f"baseModels/{scale.base_model}"
    asks: list[Callable[[], Answer]] = []
    for number in range(scale.questions + scale.base_questions + scale.http_questions):
        record = records[number % len(records)]
        if number < scale.http_questions:
            asks.append(lambda record=record: _by_http(run, MODEL, record))  # type: ignore[misc]
        elif number < scale.http_questions + scale.base_questions:
            asks.append(lambda record=record: _by_grpc(run, base, record))  # type: ignore[misc]
        else:
            asks.append(lambda record=record: _by_grpc(run, MODEL, record))  # type: ignore[misc]
    asks = [ask for offset in range(7) for ask in asks[offset::7]]  # mixed, so that batches are
    begun = time.monotonic()
    answers: list[Answer] = []
    with run.progress("answers", len(asks)) as bar, ThreadPoolExecutor(AT_ONCE) as pool:
        for answer in pool.map(lambda ask: _asked(run, ask), asks):
            answers.append(answer)
            bar.at(len(answers), len(asks), f"{answer.text.strip()[:30]!r}")
    wall_s = time.monotonic() - begun
    by_model = [a for a in answers if a.model == MODEL]
    right = sum(a.text.strip() == a.expected for a in by_model)
    for answer in answers[:4]:
        run.say(
            f"[dim]{answer.model} by {answer.api}:[/dim] {answer.question[:70]!r} "
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
    run.say(
        f"{len(answers)} answers in {wall_s:.1f} s, {len(answers) / wall_s:.1f} answers/s; "
        f"{right} of {len(by_model)} by the adapter name the record's tactic exactly"
    )
    outcome.facts["answers"] = [asdict(answer) for answer in answers]
    return outcome


def _asked(run: Run, ask: Callable[[], Answer]) -> Answer:
    """One answer; asked again when the service was unreachable before it was complete."""
    for left in reversed(range(ATTEMPTS)):
        try:
            return ask()
        except (httpx.TransportError, TimeoutError, Unavailable):
            if not left:
                raise
        _await_service(run)
    raise AssertionError("unreachable: the last try returns or raises")


def _await_service(run: Run) -> None:
    for _ in range(120):
        if run.as_(ANALYST).is_serving(INFERENCE):
            return
        time.sleep(0.5)  # a restarting process can only be polled
    raise Unavailable(
        "the inference service does not come back; see the platform's log", reason="INFERENCE_DOWN"
    )


def _await_served(run: Run, version: str) -> None:
    """Waits until the promotion has reached the inference service. Raises Unavailable after two minutes."""
    stub = run.as_(ANALYST).inference
    for _ in range(600):
        served = stub.ListServedModels(pb.ListServedModelsRequest(), timeout=30).models
        if any(model.name == version and model.is_default for model in served):
            return
        time.sleep(0.2)  # there is no watch for this
    raise Unavailable(f"{version} was promoted but is not served after 120 s", reason="NOT_SERVED")


def _prompt(record: dict[str, str]) -> str:
    return f"Report: {record['text']}\nTactic:"


def _by_grpc(run: Run, model: str, record: dict[str, str]) -> Answer:
    request = pb.GenerateRequest(
        model=model, prompt=_prompt(record), sampling=pb.SamplingParameters(max_output_tokens=12, stop=["\n"])
    )
    begun, first, inference, text = time.monotonic(), 0.0, "", ""
    finished = pb.GenerateResponse.Finished()
    for response in run.as_(ANALYST).inference.Generate(request, timeout=120):
        if response.HasField("started"):
            inference = response.started.inference
        elif response.HasField("delta"):
            first = first or time.monotonic() - begun
            text += response.delta.text
        elif response.HasField("finished"):
            finished = response.finished
    duration = time.monotonic() - begun
    return Answer(
        inference=inference,
        model=model,
        question=record["text"],
        text=text,
        expected=record["tactic"],
        api="gRPC",
        first_token_s=first or duration,
        duration_s=duration,
        output_tokens=finished.usage.output_tokens,
    )


def _by_http(run: Run, model: str, record: dict[str, str]) -> Answer:
    return asyncio.run(_by_http_within(run, model, record))


async def _by_http_within(run: Run, model: str, record: dict[str, str]) -> Answer:
    """Reads the streamed answer. The deadline is for the whole of it: those of httpx start again with every byte."""
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
    headers = {"Authorization": f"Bearer {run.token(ANALYST)()}"}
    url = f"{run.platform.endpoints['openai']}/completions"
    async with (
        asyncio.timeout(ANSWER_S),
        httpx.AsyncClient(trust_env=False, timeout=ANSWER_S) as client,
        client.stream("POST", url, json=body, headers=headers) as response,
    ):
        if response.status_code != 200:
            refused = await response.aread()
            raise Unavailable(
                f"{url} answered {response.status_code}: {refused[:300]!r}", reason="HTTP_ERROR"
            )
        inference = response.headers["x-openledger-inference-id"]
        async for line in response.aiter_lines():
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
        inference=name,
        model=model,
        question=record["text"],
        text=text,
        expected=record["tactic"],
        api="HTTP",
        first_token_s=first or duration,
        duration_s=duration,
        output_tokens=tokens,
    )
