"""Claims about the service as a process that is killed: what was answered is recorded, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openledger.inference.v1 import inference_pb2 as pb
from openledger.inference.v1.inference_pb2_grpc import InferenceServiceStub

from servicekit.auth import DevelopmentIssuer
from servicekit.client import sync_channel
from servicekit.eventlog.factory import open_event_log
from servicekit.events import from_record
from servicekit.topics import INFERENCE_COMPLETED_V1

pytestmark = pytest.mark.server


@contextmanager
def process(
    state_dir: Path, event_log: str | None = None
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A service in its own process, and its ready line. Killed when the block ends, if it still runs."""
    environment = {
        **os.environ,
        "OPENLEDGER_STATE_DIR": str(state_dir),
        "OPENLEDGER_AUTH_MODE": "development",
        "OPENLEDGER_INFERENCE_BASE_MODEL": "tiny",
        "OPENLEDGER_COMPUTE": "fp32",
        "OMP_NUM_THREADS": "1",
    }
    if event_log is not None:
        environment["OPENLEDGER_EVENT_LOG"] = event_log
    one = subprocess.Popen(
        [sys.executable, "-m", "inference"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert one.stdout is not None
        yield one, json.loads(one.stdout.readline())
    finally:
        one.kill()
        one.wait()


def answer(address: str, token: str) -> tuple[str, str]:
    """(inference, text) of an answer heard to its end."""
    stub: Any = InferenceServiceStub(sync_channel(address, token))
    request = pb.GenerateRequest(
        model="baseModels/tiny", prompt="The actor", sampling=pb.SamplingParameters(max_output_tokens=8)
    )
    started, *deltas, finished = stub.Generate(request, timeout=60)
    assert finished.WhichOneof("part") == "finished"
    return started.started.inference, "".join(delta.delta.text for delta in deltas)


def recorded(event_log: str, expected: int) -> list[Any]:
    """All answer events once there are as many as expected, and a moment later: none may follow."""
    log = open_event_log(event_log)
    log.ensure_topics([INFERENCE_COMPLETED_V1])
    consumer = log.consumer("test", [INFERENCE_COMPLETED_V1.name])
    found: list[Any] = []
    end = time.monotonic() + 30
    while len(found) < expected and time.monotonic() < end:
        found += [from_record(record) for record in consumer.poll(0.2, 100)]
    found += [from_record(record) for record in consumer.poll(1.0, 100)]
    consumer.close()
    log.close()
    return found


def token(state_dir: Path) -> str:
    return DevelopmentIssuer(state_dir).mint("alice", ["user"])


def test_answers_of_killed_processes_arrive_exactly_once_also_when_the_event_log_was_away(
    tmp_path: Path,
) -> None:
    with process(tmp_path) as (one, ready):
        bearer = token(tmp_path)
        answers = dict(answer(ready["grpc"], bearer) for _ in range(2))
        one.send_signal(signal.SIGKILL)
    with process(tmp_path, "kafka://127.0.0.1:1") as (one, ready):
        answers.update(answer(ready["grpc"], bearer) for _ in range(2))
        metrics = httpx.get(f"http://{ready['metrics']}/metrics").text
        assert 'openledger_inference_answers_total{finish="length"} 2.0' in metrics
        one.send_signal(signal.SIGKILL)
    with process(tmp_path) as (one, ready):
        answers.update([answer(ready["grpc"], bearer)])
        one.send_signal(signal.SIGTERM)
        assert one.wait(30) == 0
    events = recorded(f"embedded:{tmp_path}/events.db", 5)
    assert Counter(event.id for event in events) == Counter({name.split("/")[1]: 1 for name in answers})
    assert {event.message.inference: event.message.output for event in events} == answers
