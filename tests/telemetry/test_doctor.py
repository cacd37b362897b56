"""The doctor reports what is up, reachable, behind and misconfigured, and what to do about each."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from openledger.settlement.v1 import settlement_pb2

from openledger_client import services
from openledger_client.addresses import Addresses
from openledger_client.client import Client
from openledger_client.errors import Internal, OpenLedgerError, PermissionDenied, Unauthenticated
from openledger_ops.doctor import platform_checks
from openledger_ops.doctor.examination import Examination, failed_call
from openledger_ops.doctor.finding import EXIT_CODES, Finding, worst
from openledger_ops.doctor.observation import Observation, observe
from openledger_ops.doctor.samples import Samples
from openledger_ops.doctor.service_checks import service_findings

pytestmark = pytest.mark.slow

Answer = Callable[[str, bytes], tuple[int, str, dict[str, str]]]
"""Path and body to status, text and headers."""


class FakeServer:
    """An HTTP server that answers as a service's operations endpoint, a chain's node or Ray would."""

    def __init__(self, answer: Answer) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                status, text, headers = answer(self.path, self.rfile.read(length))
                self.send_response_only(status)
                for name, value in {
                    "Date": formatdate(usegmt=True),
                    **headers,
                    "Content-Length": str(len(text)),
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET

            def log_message(self, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def start_server() -> Iterator[Callable[[Answer], FakeServer]]:
    opened: list[FakeServer] = []

    def open_(answer: Answer) -> FakeServer:
        opened.append(FakeServer(answer))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


def service(page: str = "", **ready: Any) -> Observation:
    """A service that is up, with this on its /metrics and that on its /readyz."""
    return Observation(
        service="datanet",
        address="h:1",
        serving=True,
        operations="h:2",
        ready={"status": "ok", **ready},
        samples=Samples(page),
        skew_s=0.2,
    )


def of_check(findings: Iterator[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


def test_all_is_well() -> None:
    assert worst(service_findings(service())) == "ok"


def test_a_service_that_is_not_known_or_does_not_serve_is_a_problem() -> None:
    for view in (
        Observation(service="datanet", absent="not running here"),
        Observation(service="datanet", address="h:1"),
    ):
        (finding,) = of_check(service_findings(view), "up")
        assert finding.level == "problem"
        assert finding.remedy


@pytest.mark.parametrize(
    ("page", "check"),
    [
        ("openledger_outbox_oldest_seconds 45", "outbox"),
        ("openledger_wal_unsent_bytes 5e6", "write-ahead log"),
        ("openledger_attribution_answers_pending 900", "scoring"),
        ("openledger_relay_uncommitted_batches 9", "settlement"),
        ("openledger_relay_oldest_waiting_seconds 4000", "sealing"),
        ('openledger_consumer_lag_records{group="g",topic="t",partition="0"} 600\n'
         'openledger_consumer_lag_records{group="g",topic="t",partition="1"} 600', "lag"),
        ('openledger_saturation_ratio{resource="handler_threads"} 1.5', "saturation"),
        ('openledger_object_references_published_timestamp_seconds{service="datanet"} 1.7e9', "object references"),
        ('openledger_object_references_published_timestamp_seconds{service="datanet"} 0', "object references"),
    ],
)  # fmt: skip
def test_what_is_behind_is_a_warning_with_what_to_do(page: str, check: str) -> None:
    (finding,) = of_check(service_findings(service(page + "\n")), check)
    assert finding.level == "warning"
    assert finding.remedy


@pytest.mark.parametrize(
    ("ever", "waiting", "level"), [(0, None, "ok"), (3, 0, "ok"), (3, 1, "warning"), (3, None, "warning")]
)
def test_dead_letters_are_news_until_they_were_redriven(ever: int, waiting: int | None, level: str) -> None:
    (finding,) = platform_checks.dead_letters({"t.dlq": ever}, lambda topic, number: waiting)
    assert finding.level == level
    assert bool(finding.remedy) == (level == "warning")


def test_a_little_lag_is_no_news() -> None:
    page = 'openledger_consumer_lag_records{group="g",topic="t",partition="0"} 3\nopenledger_outbox_oldest_seconds 0.2\n'
    assert worst(service_findings(service(page))) == "ok"


@pytest.mark.parametrize(("state", "level"), [("stuck", "problem"), ("failing", "warning")])
def test_a_stuck_loop_is_a_problem_and_a_failing_one_a_warning_and_both_are_named(
    state: str, level: str
) -> None:
    loops = [{"loop": "reconciler", "state": state, "for_s": 95.0, "on": "Ray at http://h:8265"}]
    (finding,) = of_check(service_findings(service(loops=loops)), "loops")
    assert finding.level == level
    assert "reconciler" in finding.detail
    assert "Ray at http://h:8265" in finding.detail


def test_a_halted_consumer_is_a_problem() -> None:
    page = 'openledger_consumer_halted{group="attribution"} 1\n'
    (finding,) = of_check(service_findings(service(page)), "halted")
    assert finding.level == "problem"
    assert "attribution" in finding.detail


def test_the_chain_is_judged_by_when_it_was_seen_and_how_old_its_head_then_was() -> None:
    now = time.time()

    def page(seen: float, head: float, finalized: float) -> str:
        values = {"seen": seen, "head": head, "finalized": finalized}
        return "".join(
            f"openledger_relay_chain_{name}_timestamp_seconds {value}\n" for name, value in values.items()
        )

    assert worst(service_findings(service(page(now, now - 2, now - 60)))) == "ok"
    (unreached,) = of_check(service_findings(service(page(now - 600, now - 602, now - 660))), "reached")
    assert unreached.level == "problem"
    (stopped,) = of_check(service_findings(service(page(now, now - 900, now - 960))), "head")
    assert stopped.level == "warning"
    (unsure,) = of_check(service_findings(service(page(now, now, 0))), "finality")
    assert unsure.level == "warning"


@pytest.mark.parametrize("kind", ["development_issuer", "plain_text", "unknown_variable"])
def test_a_warning_of_a_service_is_reported_with_what_to_do(kind: str) -> None:
    (finding,) = of_check(service_findings(service(warnings=[{"kind": kind, "message": "m"}])), kind)
    assert (finding.level, finding.detail) == ("warning", "m")
    assert finding.remedy


def test_a_service_that_is_not_ready_says_why() -> None:
    (finding,) = of_check(
        service_findings(service(status="failing", reason="the database does not answer")), "ready"
    )
    assert (finding.level, finding.detail) == ("problem", "the database does not answer")


def test_a_clock_that_is_off_is_seen_by_the_date_a_service_answers(
    start_server: Callable[[Answer], FakeServer],
) -> None:
    slow = formatdate(time.time() - 120, usegmt=True)
    server = start_server(lambda path, _: (200, "{}" if path == "/readyz" else "", {"Date": slow}))
    view = observe("datanet", server.address, server.address)
    assert view.skew_s is not None
    assert -125 < view.skew_s < -115
    (finding,) = of_check(service_findings(view), "clock")
    assert finding.level == "problem"


@pytest.mark.parametrize("answer", [(500, "no", {}), (200, "no page of metrics {", {})])
def test_an_endpoint_that_answers_nonsense_is_a_finding_and_no_traceback(
    start_server: Callable[[Answer], FakeServer], answer: tuple[int, str, dict[str, str]]
) -> None:
    server = start_server(lambda path, _: (200, "{}", {}) if path == "/readyz" else answer)
    (finding,) = of_check(
        service_findings(observe("datanet", server.address, server.address)), "operations endpoint"
    )
    assert finding.level == "problem"


@pytest.mark.parametrize(
    "page",
    ["[]", "null", '{"loops": ["a"]}', '{"loops": [{"for_s": "long"}]}', '{"warnings": [1]}', '{"loops": 1}'],
)
def test_a_readiness_that_is_not_a_services_is_a_finding_and_no_traceback(
    start_server: Callable[[Answer], FakeServer], page: str
) -> None:
    server = start_server(lambda path, _: (200, page if path == "/readyz" else "", {}))
    findings = list(service_findings(observe("datanet", server.address, server.address)))
    (finding,) = of_check(findings, "operations endpoint")
    assert finding.level == "problem"


INFO = settlement_pb2.SettlementInfo(
    chain_id=31337,
    **{
        f"{name}_address": "0x" + digit * 40
        for name, digit in zip(("ledger", "distributor", "token", "registry"), "1234", strict=True)
    },
)


def node(chain_id: int, without: str = "none") -> Answer:
    """A node of a chain on which contracts stand, but for one."""

    def answer(path: str, body: bytes) -> tuple[int, str, dict[str, str]]:
        asked = json.loads(body)
        code = "0x" if without in json.dumps(asked["params"]) else "0x60"
        return 200, json.dumps({"result": hex(chain_id) if asked["method"] == "eth_chainId" else code}), {}

    return answer


@pytest.mark.parametrize(
    ("answer", "check", "level"),
    [
        (node(31337), "contracts", "ok"),
        (node(31337, without="0x2222"), "contracts", "problem"),
        (node(1), "chain id", "problem"),
        (lambda path, body: (200, "<html>", {}), "node", "problem"),
    ],
)
def test_the_chain_must_be_the_relay_s_and_hold_its_contracts(
    start_server: Callable[[Answer], FakeServer], answer: Answer, check: str, level: str
) -> None:
    (finding,) = of_check(platform_checks.chain(f"http://{start_server(answer).address}", INFO), check)
    assert finding.level == level


def test_contracts_of_which_a_slow_node_says_nothing_are_not_called_missing(
    start_server: Callable[[Answer], FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy for a missing contract is to deploy again, with a new database."""
    monkeypatch.setattr(platform_checks, "in_parallel", lambda calls, limit_s: [True, None, True, True])
    findings = list(platform_checks.chain(f"http://{start_server(node(31337)).address}", INFO))
    (finding,) = of_check(findings, "contracts")
    assert (finding.level, "not checked" in finding.detail) == ("warning", True)
    assert "deploy" not in finding.remedy


def test_ray_that_refuses_is_there_and_one_that_does_not_answer_is_not(
    start_server: Callable[[Answer], FakeServer],
) -> None:
    server = start_server(lambda path, _: (401, "token", {}))
    assert platform_checks.ray(f"http://{server.address}").level == "ok"
    assert platform_checks.ray("http://127.0.0.1:1").level == "problem"


def test_the_examination_ends_in_time_although_nothing_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        given = {service.name: address for service in services.ALL}
        with Client(Addresses(state_dir=tmp_path, given=given)) as client:
            rpc = f"http://{address}/secret"
            examination = Examination(client=client, rpc=rpc, ray_address=rpc, limit_s=0.5)
            found = {(each.about, each.check): each for each in examination.findings()}
    assert {("chain", "time"), ("ray", "time")} <= set(found)
    assert all(found[service.name, "up"].level == "problem" for service in services.ALL)


@pytest.mark.parametrize(
    ("error", "level", "remedy"),
    [
        (
            PermissionDenied("ann lacks trainer.basemodels.read"),
            "warning",
            "a role that has it, e.g. operator",
        ),
        (Unauthenticated("the token has expired"), "warning", "give a valid token"),
        (Internal("a defect"), "problem", "read its log"),
    ],
)
def test_a_caller_that_may_not_ask_is_no_problem_of_the_platform(
    error: OpenLedgerError, level: str, remedy: str
) -> None:
    finding = failed_call(services.TRAINER, error)
    assert (finding.level, finding.about, finding.check) == (level, "trainer", "asked")
    assert finding.detail == ("not checked: " if level == "warning" else "") + str(error)
    assert remedy in finding.remedy


def test_a_node_is_named_without_its_key(start_server: Callable[[Answer], FakeServer]) -> None:
    address = start_server(lambda path, _: (500, "no", {})).address
    (finding,) = platform_checks.chain(f"http://user:secret@{address}/secret?secret", None)
    assert finding.detail == f"http://{address} answers 500"


def test_a_base_model_is_published_and_served() -> None:
    assert worst(platform_checks.base_models(["a", "b"], ["b"])) == "ok"
    assert worst(platform_checks.base_models([], ["b"])) == "problem"
    assert worst(platform_checks.base_models(["a"], ["b"])) == "problem"


def test_a_variable_that_is_never_read_is_named() -> None:
    known = {
        "OPENLEDGER_STATE_DIR": "x",
        "OPENLEDGER_DATANET_GRPC_PORT": "1",
        "OPENLEDGER_TOKEN": "t",
        "HOME": "/",
    }
    assert list(platform_checks.unknown_variables(known)) == []
    (finding,) = platform_checks.unknown_variables({**known, "OPENLEDGER_EVENTLOG": "kafka://"})
    assert "OPENLEDGER_EVENTLOG" in finding.detail


def test_every_variable_that_a_program_reads_is_known_to_the_doctor() -> None:
    root = Path(__file__).resolve().parents[2]
    sources = [
        file for folder in ("cli", "libs", "ops", "services") for file in (root / folder).rglob("*.py")
    ]
    read = re.compile(r"""(?:environ(?:\.get)?[\[(]|envvar=)\s*["'](OPENLEDGER_\w+)["']""")
    names = {name for file in sources if "tests" not in file.parts for name in read.findall(file.read_text())}
    assert len(names) > 5
    assert list(platform_checks.unknown_variables(dict.fromkeys(names, "x"))) == []


def test_the_exit_code_is_that_of_the_worst_finding() -> None:
    ok, warning, problem = (
        Finding(level=level, about="a", check="c", detail="d") for level in ("ok", "warning", "problem")
    )
    assert [EXIT_CODES[worst(found)] for found in ([ok], [ok, warning], [problem, warning], [])] == [
        0,
        2,
        1,
        0,
    ]


def doctor(state: Path) -> tuple[int, dict[tuple[str, str], dict[str, str]]]:
    """Exit code and findings of the real command on a state folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENLEDGER_")}
    command = [sys.executable, "-m", "openledger_cli", "--state-dir", str(state), "--json", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, env=kept, timeout=120, check=False)
    assert done.stderr == ""
    return done.returncode, {(f["about"], f["check"]): f for f in json.loads(done.stdout)["findings"]}


@pytest.mark.server
def test_a_real_service_is_seen_up_with_its_warnings_and_down_when_it_was_killed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    environment = {
        **os.environ,
        "OPENLEDGER_STATE_DIR": str(state),
        "OPENLEDGER_AUTH_MODE": "development",
        "OPENLEDGER_DATANET_GRPC_PROT": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "datanet"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "ready"
        code, found = doctor(state)
        assert code == 1  # the others are not there
        assert found["datanet", "up"]["level"] == "ok"
        assert found["datanet", "clock"]["level"] == "ok"
        assert found["datanet", "outbox"]["level"] == "ok"
        assert found["datanet", "development_issuer"]["level"] == "warning"
        assert "GRPC_PROT" in found["datanet", "unknown_variable"]["detail"]
        assert found["machine", "disk"]["detail"]
        assert found["trainer", "up"]["level"] == "problem"
    finally:
        process.kill()
        process.wait()
    code, found = doctor(state)
    assert code == 1
    assert found["datanet", "up"]["level"] == "problem"
