"""`openledger up`: ports, plan, log view."""

from __future__ import annotations

import configparser
import json
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from openledger_client import services
from openledger_ops.state_folder import base_model
from openledger_ops.up import plan as plan_module
from openledger_ops.up import supervise
from openledger_ops.up.log_view import LogView
from openledger_ops.up.plan import Plan, Program, supervisor_socket
from openledger_ops.up.ports import choose_ports
from openledger_ops.up.supervise import Supervisor, processes_of
from servicekit.errors import StartupError
from servicekit.testing.waiting import LONGEST_S, eventually


def make_plan(tmp_path: Path, kind: type[Plan] = Plan, **environment: str) -> Plan:
    return kind(
        state_dir=tmp_path,
        ports=choose_ports(0),
        base_model="tiny",
        event_log="",
        chain_state=tmp_path / "chain" / "anvil.json",
        environment=environment,
    )


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
    assert names == {"anvil", "ray", *(service.name for service in services.ALL)}
    assert '50%% \\"quoted\\"' in parsed["supervisord"]["environment"]


def test_every_service_gets_its_own_fixed_port(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    environments = {program.name: program.environment for program in plan.programs()}
    assert environments["datanet"]["OPENLEDGER_DATANET_GRPC_PORT"] == str(plan.ports.grpc["datanet"])
    assert environments["chain_relay"]["OPENLEDGER_CHAIN_RELAY_RPC_URL"] == plan.rpc


def test_the_supervisor_socket_fits_a_unix_path_however_deep_the_state_folder(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-rather-long-folder-name"] * 8)
    assert len(str(supervisor_socket(deep))) <= 107


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


def test_a_traceback_is_one_line_that_says_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    view = LogView(as_json=False, quiet=True)
    for line in (
        "Traceback (most recent call last):",
        '  File "/ray/scripts.py", line 1, in start',
        "    node = Node()",
        "TimeoutError: no port file",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "Traceback (most recent call last):",
        '  File "/ray/scripts.py", line 2, in start',
        "RuntimeError: the node timed out during startup",
        "a line of its own",
    ):
        view.show(line)
    shown = capsys.readouterr().out.strip().splitlines()
    assert len(shown) == 2
    assert "TimeoutError: no port file" in shown[0]
    assert "RuntimeError: the node timed out during startup" in shown[1]
    assert "traceback" in shown[1]


def test_a_traceback_between_other_programs_lines_loses_none_of_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = LogView(as_json=False, quiet=False)
    view.show("Traceback (most recent call last):")
    view.show(json.dumps({"service": "datanet", "message": "served"}))
    view.show("  File x")
    view.show("OSError: gone")
    shown = capsys.readouterr().out
    assert "served" in shown
    assert "OSError: gone" in shown
    assert "File x" not in shown


def test_the_platforms_log_has_a_bound_and_only_its_owner_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "LOG_BYTES", 10_000)
    (tmp_path / "logs").mkdir()
    log = supervise.platform_log(tmp_path)
    for number in range(2_000):
        log.emit(logging.makeLogRecord({"msg": f"line {number} " + "x" * 100}))
    log.close()
    files = sorted((tmp_path / "logs").iterdir())
    assert [path.name for path in files] == [
        "platform.log",
        *(f"platform.log.{number + 1}" for number in range(supervise.LOG_BACKUPS)),
    ]
    assert all(path.stat().st_size <= 10_000 for path in files)
    assert "line 1999 " in files[0].read_text()


NEEDY = "import sys, time; from pathlib import Path; [time.sleep(0.05) for _ in iter(Path(sys.argv[1]).exists, False)]"


class OneProgram(Plan):
    """A platform of one program, which runs as long as a file is there; supervisord gives it up at its first failure."""

    def programs(self) -> list[Program]:
        command = (sys.executable, "-c", NEEDY, str(self.state_dir / "needed"))
        return [Program(name="needy", command=command, priority=10)]

    def configuration(self) -> str:
        return super().configuration().replace("startretries=5", "startretries=0")


@pytest.mark.slow
def test_what_supervisord_gave_up_is_started_again_once_the_platform_was_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "RESTART_EVERY_S", 0.2)
    monkeypatch.setattr(supervise, "pending_endpoints", lambda plan: [])
    plan = make_plan(tmp_path, OneProgram)
    needed, stopping, ready = tmp_path / "needed", threading.Event(), threading.Event()
    needed.touch()
    supervisor = Supervisor(plan=plan, view=LogView(as_json=False, quiet=True), stopping=stopping)
    thread = threading.Thread(target=supervisor.run, args=(ready.set,))
    thread.start()

    def state() -> tuple[str, int]:
        try:
            (process,) = processes_of(supervisor_socket(tmp_path))
        except OSError:
            return "", 0
        return str(process["statename"]), int(process["pid"])

    def running_pid() -> int:
        name, pid = state()
        return pid if name == "RUNNING" else 0

    try:
        assert ready.wait(LONGEST_S)
        pid = eventually(running_pid, "the program to run")
        needed.unlink()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: state()[0] == "FATAL", "supervisord to give the program up")
        needed.touch()
        eventually(running_pid, "the program to run again")
    finally:
        stopping.set()
        thread.join()
    assert not supervisor_socket(tmp_path).exists()


def test_the_base_model_of_a_state_folder_stays(tmp_path: Path) -> None:
    assert base_model("", tmp_path) == "smollm2-135m-instruct"
    plan = make_plan(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "environment.json").write_text(json.dumps(plan.settings()))
    assert base_model("", tmp_path) == "smollm2-135m-instruct"  # tiny was asked for, and never published
    plan.base_marker.parent.mkdir()
    plan.base_marker.write_text("sha256:" + "0" * 64)
    assert base_model("", tmp_path) == "tiny"
    assert base_model("smollm2-135m-instruct", tmp_path) == "smollm2-135m-instruct"


def test_what_the_operator_sets_for_one_service_wins_except_for_its_ports(tmp_path: Path) -> None:
    given = {"OPENLEDGER_CHAIN_RELAY_RPC_URL": "https://node.example", "OPENLEDGER_DATANET_GRPC_PORT": "1"}
    plan = make_plan(tmp_path, **given)
    environments = {program.name: program.environment for program in plan.programs()}
    assert environments[services.CHAIN_RELAY.name]["OPENLEDGER_CHAIN_RELAY_RPC_URL"] == "https://node.example"
    assert environments["datanet"]["OPENLEDGER_DATANET_GRPC_PORT"] == str(plan.ports.grpc["datanet"])
