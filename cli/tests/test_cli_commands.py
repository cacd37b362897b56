"""What people type and read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from openledger.common.v1.estimate_pb2 import Estimate
from typer.testing import CliRunner

from openledger_cli import layout
from openledger_cli.__main__ import app
from openledger_cli.commands.training import weighted
from openledger_cli.console import printable, say
from openledger_cli.context import parse_identity
from openledger_cli.lazy import COMMANDS, LazyCommand
from openledger_cli.output import duration, estimate
from openledger_cli.progress import Progress, rate
from openledger_client.amounts import open_tokens
from openledger_client.errors import ConfigurationError
from servicekit.auth import DevelopmentIssuer
from servicekit.auth.development_token import DevelopmentToken
from servicekit.errors import StartupError


def all_commands() -> list[tuple[str, Any]]:
    """Every command with its path."""
    found: list[tuple[str, Any]] = []

    def walk(command: Any, path: str) -> None:
        below = getattr(command, "commands", None)
        if not below:
            found.append((path, command))
        for name, each in (below or {}).items():
            walk(each, f"{path} {name}")

    for name, entry in COMMANDS.items():
        walk(LazyCommand(name, entry).load(), name)
    return found


ALL = dict(all_commands())
LISTS = (
    "datanet list",
    "datanet contributor list",
    "datanet records",
    "datanet snapshots",
    "train bases",
    "train list",
    "model list",
    "served",
    "attribution list",
    "attribution indexes",
    "settle batches",
    "settle balances",
    "settle roots",
)


@pytest.mark.parametrize("command", ALL)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_the_top_level_is_that_of_the_command(name: str) -> None:
    own = LazyCommand(name, COMMANDS[name]).load().help
    assert own.splitlines()[0] == COMMANDS[name].help


@pytest.mark.parametrize("command", LISTS)
def test_every_list_has_filter_order_and_limit(command: str) -> None:
    options = {option for parameter in ALL[command].params for option in parameter.opts}
    assert options >= {"--filter", "--order-by", "--limit"}


@pytest.mark.parametrize(
    "command", ["", "train", "train get", "datanet", "model", "settle", "ask", "dlq", "up"]
)
def test_help_loads_no_heavy_module(command: str) -> None:
    heavy = {
        "sqlalchemy",
        "web3",
        "grpc",
        "google.protobuf",
        "pydantic",
        "rich.progress",
        "numpy",
        "torch",
        "httpx",
        "kafka",
        "servicekit",
    }
    program = (
        f"import sys; sys.argv = ['openledger', *{command.split()!r}, '--help']\n"
        "from openledger_cli.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    assert finished.stderr.strip() == "[]"
    assert f"Usage: openledger {command}".rstrip() in finished.stdout


def test_an_identity_is_a_name_and_roles() -> None:
    assert parse_identity("alice:curator,builder") == ("alice", ("curator", "builder"))
    with pytest.raises(typer.BadParameter, match="NAME:ROLE"):
        parse_identity("alice")


def test_a_service_that_does_not_run_is_named_with_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--state-dir", str(tmp_path), "train", "list"])
    assert isinstance(result.exception, ConfigurationError)
    assert "OPENLEDGER_TRAINER_ADDRESS=host:port" in str(result.exception)


def test_without_token_or_issuer_no_call_is_made(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="no token"):
        DevelopmentToken(tmp_path, "alice", ("curator",))()


def test_an_expected_failure_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "openledger_cli", "--state-dir", str(tmp_path), "train", "list"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert finished.returncode == 1
    assert finished.stderr.startswith("openledger: FAILED_PRECONDITION: trainer is not running here")
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("base_units", "shown"),
    [
        ("0", "0 OPEN"),
        ("1", "0.000000000000000001 OPEN"),
        ("1500000000000000000", "1.5 OPEN"),
        ("", "0 OPEN"),
    ],
)
def test_amounts_lose_no_digit(base_units: str, shown: str) -> None:
    assert open_tokens(base_units) == shown


def test_an_estimate_shows_interval_and_sample_size() -> None:
    assert estimate(Estimate(value=0.5, lower=0.4, upper=0.6, sample_size=10)) == "0.5 [0.4, 0.6] n=10"
    assert estimate(Estimate()) == "-"


def test_weights_of_snapshots() -> None:
    assert weighted(["datanets/d/snapshots/1=2.5"])[0].weight == 2.5
    with pytest.raises(typer.BadParameter, match="not a number"):
        weighted(["datanets/d/snapshots/1=much"])


WORDS = [
    ("datanets/threat-intelligence-of-northern-europe/contributors/palo-alto-networks-unit-42", "open", "3"),
    ("datanets/d/contributors/c", "sha256:" + "0123456789abcdef" * 4, "some words of a longer explanation"),
]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_table_keeps_every_name_whole_and_its_width_where_it_can(width: int) -> None:
    lines = layout.table(["name", "digest", "detail"], WORDS, width)
    words = {word for row in WORDS for cell in row for word in cell.split()}
    assert words <= {word for line in lines for word in line.split()}
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines)


def test_a_table_that_fits_is_a_table() -> None:
    assert layout.table(["name", "count"], [("models/m", "1"), ("models/long-name", "22")], 80) == [
        "name              count",
        "models/m          1",
        "models/long-name  22",
    ]


def test_long_text_wraps_between_words_in_its_column() -> None:
    lines = layout.table(["name", "why"], [("models/m", "one two three four five")], 24)
    assert lines == ["name      why", "models/m  one two three", "          four five"]


def test_a_value_that_does_not_fit_beside_its_label_has_its_own_line() -> None:
    digest = "sha256:" + "0" * 64
    lines = layout.pairs([("training manifest", digest), ("state", "trained")], 80)
    assert lines == [("training manifest", ""), ("  ", digest), ("state              ", "trained")]


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 59, 60, 200, 7500)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "3 min 20 s",
        "2 h 05 min",
    ]


@pytest.mark.parametrize(
    ("per_s", "shown"),
    [(0.0, ""), (0.001, ""), (0.04, "2 items/min"), (0.5, "30 items/min"), (12.34, "12.3 items/s")],
)
def test_a_rate_is_never_zero(per_s: float, shown: str) -> None:
    assert rate(per_s, "items") == shown


def test_a_log_has_a_line_every_few_seconds_with_the_time_left() -> None:
    lines: list[str] = []
    now = [0.0]
    bar = Progress("training", lines.append, clock=lambda: now[0])
    for second in range(41):
        now[0] = float(second)
        bar.at(second, 40, unit="steps", detail=rate(0.0, "tokens"))
    assert lines[0] == "training 0/40 steps"
    assert lines[1] == "training 5/40 steps, 35 s left"
    assert lines[-1] == "training 40/40 steps"
    bar.at(40, 40, unit="steps")
    assert len(lines) == 9


def test_the_services_estimate_wins_and_a_new_stage_has_its_own_line() -> None:
    lines: list[str] = []
    bar = Progress("evaluating", lines.append, clock=lambda: 0.0)
    bar.at(1, 10, unit="items", stage="scoring hellaswag", eta_s=90)
    bar.at(2, 10, unit="items", stage="scoring hellaswag", eta_s=80)
    bar.at(0, 10, unit="item", stage="scoring arc_easy")
    assert lines == ["scoring hellaswag 1/10 items, 1 min 30 s left", "scoring arc_easy 0/10 items"]


def test_what_others_wrote_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("a\u202eb\u200b\u00ad\u2066\U000e0041\u3164\x9b\u2800\ue000") == (
        "a\\u202eb\\u200b\\xad\\u2066\\U000e0041\\u3164\\x9b\\u2800\\ue000"
    )
    assert printable("na\u00efve \u0434\u0430 \u304c\n\t") == "na\u00efve \u0434\u0430 \u304c\n\t"
    say("answer \x1b[2J", (" [/red] [bold]x", "dim"))
    assert capsys.readouterr().out == "answer \\x1b[2J [/red] [bold]x\n"


def test_a_token_as_json(tmp_path: Path) -> None:
    DevelopmentIssuer(tmp_path).ensure_keys()
    result = CliRunner().invoke(
        app, ["--state-dir", str(tmp_path), "token", "ann", "--role", "user", "--json"]
    )
    found = json.loads(result.output)
    assert (found["principal"], found["roles"], found["ttl_s"]) == ("ann", ["user"], 3600)
    assert found["token"].count(".") == 2
