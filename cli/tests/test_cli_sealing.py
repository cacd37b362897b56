"""`openledger datanet seal` shows how far it is without a terminal too, and says that an interrupted one continues."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from openledger.common.v1.estimate_pb2 import Progress
from openledger.datanet.v1 import datanet_pb2 as pb
from typer.testing import CliRunner, Result

from openledger_cli.__main__ import app
from openledger_client.services import DATANET
from openledger_client.testing import Script, scripted_server

NAME = "datanets/d/sealOperations/01J00000000000000000000000"
RUNNING = pb.SealOperation(
    state=pb.SEAL_OPERATION_STATE_RUNNING,
    progress=Progress(stage="copy", done=1000, total=4000, unit="record", eta_s=75),
)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def environment(script: Script, tmp_path: Path) -> Iterator[dict[str, str]]:
    with scripted_server(script) as address:
        yield {DATANET.variable("address"): address, "OPENLEDGER_STATE_DIR": str(tmp_path)}


def run(environment: dict[str, str], *words: str) -> Result:
    return CliRunner().invoke(app, ["--token", "t", *words], env=environment)


def test_every_stage_and_the_time_left_are_shown_without_a_terminal(
    script: Script, environment: dict[str, str]
) -> None:
    ended = pb.SealOperation(state=pb.SEAL_OPERATION_STATE_SUCCEEDED, snapshot="datanets/d/snapshots/1")
    waiting = pb.SealOperation(state=pb.SEAL_OPERATION_STATE_PENDING, queue_position=2)
    script.sealing = [waiting, RUNNING, ended]
    result = run(environment, "datanet", "seal", "d")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "waiting place 2 in the queue"
    assert lines[1] == "copy 1,000/4,000 records, 1 min 15 s left"
    assert "datanets/d/snapshots/1" in lines[2]


def test_no_wait_prints_the_operation(environment: dict[str, str]) -> None:
    result = run(environment, "datanet", "seal", "d", "--no-wait")
    assert result.exit_code == 0
    assert NAME in result.output


@pytest.mark.parametrize("state", [pb.SEAL_OPERATION_STATE_FAILED, pb.SEAL_OPERATION_STATE_CANCELLED])
def test_an_operation_without_a_snapshot_ends_the_command_with_1(
    script: Script, environment: dict[str, str], state: pb.SealOperationState.ValueType
) -> None:
    status = Status(code=9, message="datanets/d has no accepted records")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="DATANET_EMPTY", domain="openledger.dev"))
    failed = state == pb.SEAL_OPERATION_STATE_FAILED
    script.sealing = [pb.SealOperation(state=state, error=status if failed else None)]
    result = run(environment, "datanet", "seal", "d")
    assert result.exit_code == 1
    assert ("DATANET_EMPTY: datanets/d has no accepted records" in result.output) == failed


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_leaves_the_operation_running_and_says_how_to_go_on(
    script: Script, environment: dict[str, str]
) -> None:
    script.hold = threading.Event()
    script.sealing = [RUNNING, pb.SealOperation(state=pb.SEAL_OPERATION_STATE_SUCCEEDED)]
    command = [sys.executable, "-m", "openledger_cli", "--token", "t", "datanet", "seal", "d"]
    with subprocess.Popen(
        command,
        env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("copy 1,000/4,000 records")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    script.hold.set()
    assert process.returncode == 130
    assert f"the service continues to seal: {NAME}" in said
    assert f"openledger datanet operation watch {NAME}" in said
    assert f"openledger datanet operation cancel {NAME}" in said
    asked = [type(request).__name__ for request in script.requests]
    assert "CancelSealOperationRequest" not in asked
