"""`openledger up`: ports, plan, log view."""

from __future__ import annotations

import configparser
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from openledger_cli.up import plan as plan_module
from openledger_cli.up import supervise
from openledger_cli.up.logview import LogView
from openledger_cli.up.plan import Plan, Program
from openledger_cli.up.ports import choose_ports
from openledger_cli.up.supervise import Supervisor, processes_of
from servicekit.errors import StartupError


def make_plan(tmp_path: Path, **environment: str) -> Plan:
    return Plan(tmp_path, choose_ports(0), "tiny", "", tmp_path / "chain" / "anvil.json", environment)


@pytest.fixture(autouse=True)
def _anvil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "anvil"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("OPENLEDGER_ANVIL", str(binary))


def test_free_ports_are_distinct() -> None:
    ports = choose_ports(0).all()
    assert len(set(ports)) == len(ports)


def test_a_port_in_use_is_named_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"port {port} is in use") as raised:
            choose_ports(port)
    assert "\n" not in str(raised.value)


def test_the_configuration_is_what_supervisor_reads(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, OPENLEDGER_ODD='50% "quoted"')
    parsed = configparser.RawConfigParser()
    parsed.read_string(plan.configuration())
    names = {
        section.removeprefix("program:") for section in parsed.sections() if section.startswith("program:")
    }
    assert names == {"anvil", "ray", "datanet", "trainer", "inference", "attribution", "chain_relay"}
    assert '50%% \\"quoted\\"' in parsed["supervisord"]["environment"]


def test_every_service_gets_its_own_fixed_port(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    environments = {program.name: program.environment for program in plan.programs()}
    assert environments["datanet"]["OPENLEDGER_DATANET_GRPC_PORT"] == str(plan.ports.grpc["datanet"])
    assert environments["chain_relay"]["OPENLEDGER_CHAIN_RELAY_RPC_URL"] == plan.rpc


def test_the_supervisor_socket_fits_a_unix_path_however_deep_the_state_folder(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-rather-long-folder-name"] * 8)
    plan = Plan(deep, choose_ports(0), "tiny", "", deep / "anvil.json", {})
    assert len(str(plan.supervisor_socket())) <= 107


def test_a_missing_anvil_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENLEDGER_ANVIL")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan_module, "__file__", str(tmp_path / "elsewhere" / "plan.py"))
    with pytest.raises(StartupError, match="make setup"):
        plan_module.find_anvil()


def test_quiet_shows_what_went_wrong_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    view = LogView(as_json=False, quiet=True)
    view.show(json.dumps({"service": "datanet", "level": "INFO", "message": "fine"}))
    view.show(json.dumps({"service": "trainer", "level": "ERROR", "message": "disk full"}))
    shown = capsys.readouterr().out
    assert "disk full" in shown
    assert "fine" not in shown
    assert view.last_line("datanet") == "fine"


NEEDY = "import sys, time; from pathlib import Path; [time.sleep(0.05) for _ in iter(Path(sys.argv[1]).exists, False)]"


class OneProgram(Plan):
    """A platform of one program, which runs as long as a file is there; supervisord gives it up at its first failure."""

    def programs(self) -> list[Program]:
        return [Program("needy", (sys.executable, "-c", NEEDY, str(self.state_dir / "needed")), 10)]

    def configuration(self) -> str:
        return super().configuration().replace("startretries=5", "startretries=0")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)  # another process's state: it can only be asked for


@pytest.mark.slow
def test_what_supervisord_gave_up_is_started_again_once_the_platform_was_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "REVIVE_EVERY_S", 0.2)
    monkeypatch.setattr(supervise, "pending_doors", lambda plan: [])
    plan = OneProgram(tmp_path, choose_ports(0), "tiny", "", tmp_path / "anvil.json", {})
    needed, stopping, ready = tmp_path / "needed", threading.Event(), threading.Event()
    needed.touch()
    supervisor = Supervisor(plan, LogView(as_json=False, quiet=True), stopping)
    thread = threading.Thread(target=supervisor.run, args=(ready.set,))
    thread.start()

    def state() -> tuple[str, int]:
        try:
            (process,) = processes_of(plan.supervisor_socket())
        except OSError:
            return "", 0
        return str(process["statename"]), int(process["pid"])

    try:
        assert ready.wait(60)
        wait_for(lambda: state()[0] == "RUNNING", "it never ran")
        needed.unlink()
        os.kill(state()[1], signal.SIGKILL)
        wait_for(lambda: state()[0] == "FATAL", "supervisord never gave it up")
        needed.touch()
        wait_for(lambda: state()[0] == "RUNNING", "it was not started again")
    finally:
        stopping.set()
        thread.join()
    assert not plan.supervisor_socket().exists()
