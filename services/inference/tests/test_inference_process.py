"""Claims about the service as a process that is killed: what was answered is recorded, and counts once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openledger.inference.v1 import inference_pb2 as pb
from openledger.inference.v1.inference_pb2_grpc import InferenceServiceStub

from openledger_client.channels import sync_channel
from servicekit.auth import DevelopmentIssuer
from servicekit.database import engine, new_metadata, transaction
from servicekit.delivery.inbox import once
from servicekit.eventlog.events import from_record
from servicekit.eventlog.factory import open_event_log
from servicekit.eventlog.topics import INFERENCE_COMPLETED_V1
from servicekit.testing.waiting import LONGEST_S, eventually
from servicekit.wal import Wal, WalSender

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
    """(inference, text) of an answer received to its end."""
    stub: Any = InferenceServiceStub(sync_channel(address, token))
    request = pb.GenerateRequest(
        model="baseModels/tiny", prompt="The actor", sampling=pb.SamplingParameters(max_output_tokens=8)
    )
    started, *deltas, finished = stub.Generate(request, timeout=LONGEST_S)
    assert finished.WhichOneof("part") == "finished"
    return started.started.inference, "".join(delta.delta.text for delta in deltas)


def effects(folder: Path, expected: int) -> list[Any]:
    """Answer events that take effect at a consumer with an inbox, once there are as many as expected and a
    moment later: none may follow. A kill between sending and noting so sends a record again, the same one.
    """
    log = open_event_log(_log(folder))
    log.ensure_topics([INFERENCE_COMPLETED_V1])
    fresh = f"test-{time.monotonic_ns()}"  # reads from the beginning
    consumer = log.consumer(fresh, [INFERENCE_COMPLETED_V1.name])
    database = engine(f"sqlite:///{folder}/{fresh}.db")
    new_metadata().create_all(database)
    found: dict[str, Any] = {}

    def poll(timeout_s: float) -> None:
        for record in consumer.poll(timeout_s, 100):
            event = from_record(record)
            with transaction(database) as session:
                if once(session, "test", event.id):
                    assert event.id not in found
                    found[event.id] = event
                assert found[event.id].message == event.message

    def complete() -> bool:
        poll(0.2)
        return len(found) >= expected

    eventually(complete, f"{expected} events")
    poll(1.0)
    consumer.close()
    log.close()
    database.dispose()
    return list(found.values())


def _log(state_dir: Path) -> str:
    return f"embedded:{state_dir}/events.db"


def token(state_dir: Path) -> str:
    return DevelopmentIssuer(state_dir).mint("alice", ["user"])


def test_answers_of_killed_processes_take_effect_once_and_none_is_lost(tmp_path: Path) -> None:
    with process(tmp_path, "kafka://127.0.0.1:1") as (one, ready):  # the event log is down: answers continue
        bearer = token(tmp_path)
        answers = dict(answer(ready["grpc"], bearer) for _ in range(2))
        metrics = httpx.get(f"http://{ready['metrics']}/metrics", timeout=LONGEST_S).text
        assert (
            'openledger_inference_answers_total{finish="length"} 2.0' in metrics
        )  # counted before it is answered
        one.send_signal(signal.SIGKILL)
    with process(tmp_path) as (one, ready):  # it is back: what waited is sent
        assert {event.key for event in effects(tmp_path, 2)} == set(answers)
        answers.update([answer(ready["grpc"], bearer)])
        one.send_signal(signal.SIGKILL)  # before, while or after the third is sent
    send_the_rest(tmp_path)
    events = effects(tmp_path, 3)
    assert sorted(event.id for event in events) == sorted(
        name.removeprefix("inferences/") for name in answers
    )
    assert {event.message.inference: event.message.output for event in events} == answers


def send_the_rest(state_dir: Path) -> None:
    """What the next start's sender thread does first, without a model."""
    log, wal, stop = open_event_log(_log(state_dir)), Wal(state_dir / "inference" / "wal"), threading.Event()
    stop.set()
    WalSender(wal, log).run(stop)
    wal.close()
    log.close()
