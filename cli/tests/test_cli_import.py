"""`openledger datanet import` and `suggest`: a user's file, from the first look to a resumed import."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict
from openledger.datanet.v1 import datanet_pb2 as pb
from typer.testing import CliRunner, Result

from openledger_cli.__main__ import app
from openledger_client.services import DATANET
from openledger_client.testing import Script, scripted_server

FIELD = pb.RecordSchema.Field
CLAIMS = pb.Datanet(
    schema=pb.RecordSchema(
        fields=[
            FIELD(name="text", required=True, max_length=50),
            FIELD(name="cause", required=True, allowed_values=["fire", "water"]),
            FIELD(name="source"),
        ],
        prompt_template="Claim: {text}\nCause:",
        completion_template=" {cause}",
    )
)
HEADER = "report;cause;amount\n"


@pytest.fixture
def script() -> Script:
    return Script(datanet=CLAIMS)


@pytest.fixture
def environment(script: Script, tmp_path: Path) -> Iterator[dict[str, str]]:
    with scripted_server(script) as address:
        yield {DATANET.variable("address"): address, "OPENLEDGER_STATE_DIR": str(tmp_path)}


def words(file: Path, *more: str) -> list[str]:
    given = ["--datanet", "d", "--contributor", "c", "--map", "text=report", "--set", "source=claims"]
    return ["--token", "t", "datanet", "import", str(file), *given, "--ignore-other-fields", *more]


def run(environment: dict[str, str], file: Path, *more: str) -> Result:
    return CliRunner().invoke(app, words(file, *more), env=environment)


def texts(script: Script) -> list[str]:
    return [json.loads(each)["text"] for each in script.stored]


def shown(result: Result) -> str:
    return " ".join(result.output.split())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "claims.csv"
    path.write_text(HEADER + "A candle fell;fire;10\nA pipe burst;water;20\nA tree fell;storm;30\n;fire;40\n")
    return path


def test_a_file_is_imported_and_what_is_rejected_is_named(
    script: Script, environment: dict[str, str], file: Path, tmp_path: Path
) -> None:
    script.judge = lambda content: "too_short" if b"pipe" in content else ""
    result = run(environment, file, "--rejected", str(tmp_path / "rejected.jsonl"))
    assert result.exit_code == 1, result.output
    assert [json.loads(each) for each in script.stored] == [
        {"text": "A candle fell", "cause": "fire", "source": "claims"},
        {"text": "A pipe burst", "cause": "water", "source": "claims"},
    ]
    rejected = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [(each["line"], each["field"], each["rule"]) for each in rejected] == [
        (3, "", "too_short"),
        (4, "cause", "label_not_allowed"),
        (5, "text", "missing_field"),
    ]
    assert "line 4, cause: label_not_allowed not an allowed value; allowed are 'fire', 'water'" in shown(
        result
    )
    assert "line 2 as the model will read it: Claim: A candle fell Cause: fire" in shown(result)
    assert "4 rows: 1 accepted, 0 present already, 3 rejected" in shown(result)
    assert not list(tmp_path.glob("*progress*"))


def test_a_dry_run_names_all_faults_and_sends_nothing(
    script: Script, environment: dict[str, str], file: Path, tmp_path: Path
) -> None:
    result = run(environment, file, "--dry-run", "--rejected", str(tmp_path / "rejected.jsonl"))
    assert result.exit_code == 1, result.output
    assert "4 rows: 2 would be sent, 2 rejected (label_not_allowed 1, missing_field 1)" in shown(result)
    assert len((tmp_path / "rejected.jsonl").read_text().splitlines()) == 2
    assert script.stored == []
    assert {type(each).__name__ for each in script.requests} == {"GetDatanetRequest"}


def test_of_many_rejected_rows_the_first_are_shown(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "claims.csv").write_text(HEADER + "A tree fell;storm;30\n" * 25)
    rejected = tmp_path / "rejected.jsonl"
    for more, where in (
        (["--rejected", str(rejected)], f"and 5 more; {rejected} has all"),
        ([], "and 5 more; --rejected"),
    ):
        for dry in ([], ["--dry-run"]):
            result = run(environment, tmp_path / "claims.csv", *more, *dry)
            assert (result.exit_code, result.output.count("label_not_allowed not")) == (1, 20)
            assert where in shown(result)


def test_a_file_that_breaks_off_is_imported_up_to_there(
    script: Script, environment: dict[str, str], tmp_path: Path
) -> None:
    rows = [f'{{"report": "Candle {n} fell", "cause": "fire"}},' for n in range(1, 151)]
    (tmp_path / "claims.json").write_text("[" + "".join(rows) + '{"repo')
    result = run(environment, tmp_path / "claims.json")
    assert result.exit_code == 3, result.output
    assert "stopped after row 150: " in shown(result)
    assert "the array is not closed; the file is incomplete" in shown(result)
    assert len(script.stored) == 150


def test_programs_read_json(script: Script, environment: dict[str, str], file: Path) -> None:
    found = json.loads(run(environment, file, "--json", "--preview", "1").stdout)
    assert (found["rows"], found["accepted"], found["rejected"], found["complete"]) == (4, 2, 2, True)
    assert found["preview"] == [{"prompt": "Claim: A candle fell\nCause:", "completion": " fire"}]
    assert [each["row"] for each in found["first_rejected"]] == [3, 4]
    assert json.loads(run(environment, file, "--json", "--dry-run").stdout)["dry_run"] is True


def test_a_file_without_faults_ends_with_0_however_often(
    script: Script, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "claims.jsonl").write_text('{"report": "A candle fell", "cause": "fire"}\n')
    assert run(environment, tmp_path / "claims.jsonl").exit_code == 0
    again = run(environment, tmp_path / "claims.jsonl", "--resume")
    assert (again.exit_code, len(script.stored)) == (0, 1), again.output
    assert "no import of this file was interrupted: begins with the first row" in shown(again)
    assert "1 row: 0 accepted, 1 present already, 0 rejected" in shown(again)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--map", "text=reprot"], "'text=reprot' is given twice"),
        (["--map", "cause"], "'cause' is not FIELD=COLUMN"),
        (["--set", "cause"], "'cause' is not FIELD=VALUE"),
        (
            ["--set", "nature=x"],
            "'nature' is not a field of the Datanet; its fields are 'text', 'cause', 'source'",
        ),
        (["--format", "xlsx"], "'xlsx' is not one of 'csv', 'jsonl', 'json', 'parquet'"),
        (["--encoding", "latin-99"], "'latin-99' is not the name of an encoding"),
        (["--encoding", "hex"], "'hex' is not the name of an encoding"),
        (["--delimiter", "x"], "'x' is not one of"),
        (["--contributor", "datanets/e/contributors/c"], "is not a contributor of datanets/d"),
        (["--rejected", "no/such/folder"], "no/such/folder: cannot be written"),
        (["--rejected", "{file}"], "is the file that is imported"),
        (["--progress-file", "no/such/folder"], "give another place by --progress-file"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_sends_nothing(
    more: list[str], message: str, script: Script, environment: dict[str, str], file: Path
) -> None:
    content = file.read_text()
    result = run(environment, file, *(each.format(file=file) for each in more))
    assert result.exit_code == 2, result.output
    assert file.read_text() == content
    assert message in shown(result).replace("│ ", "").replace(" │", "")
    assert script.stored == []


def test_columns_without_a_field_are_named(environment: dict[str, str], file: Path) -> None:
    given = [each for each in words(file) if each != "--ignore-other-fields"]
    result = CliRunner().invoke(app, given, env=environment)
    assert result.exit_code == 2
    assert "no field takes the columns 'amount' of the file" in shown(result)
    assert "--ignore-other-fields" in shown(result)


def test_chat_records_are_refused_in_one_sentence(
    script: Script, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "chat.jsonl").write_text('{"messages": [{"role": "user", "content": "x"}]}\n')
    given = [each for each in words(tmp_path / "chat.jsonl") if each != "--ignore-other-fields"]
    for command in (given, ["datanet", "suggest", str(tmp_path / "chat.jsonl")]):
        result = CliRunner().invoke(app, command, env=environment)
        assert result.exit_code == 2
        assert "chat records (`messages`); records of messages are not supported yet" in shown(result)
    assert script.requests == []


def test_a_refused_stream_says_how_far_it_is_and_how_to_continue(
    script: Script, environment: dict[str, str], file: Path
) -> None:
    def broken(content: bytes) -> str:
        if b"pipe" in content:
            raise RuntimeError("scripted")
        return ""

    script.judge = broken
    result = run(environment, file)
    assert result.exit_code == 3, result.output
    assert "openledger: stopped after row 1: UNKNOWN" in shown(result)
    assert "Continue it by the same command with --resume." in shown(result)
    script.judge = lambda content: ""
    resumed = run(environment, file, "--resume")
    assert "continues after row 1" in shown(resumed)
    assert texts(script) == ["A candle fell", "A pipe burst"]
    assert "4 rows: 2 accepted, 0 present already, 2 rejected" in shown(resumed)


def test_another_file_is_not_continued(script: Script, environment: dict[str, str], file: Path) -> None:
    script.judge = lambda content: "" if b"candle" in content else str(1 // 0)
    assert run(environment, file).exit_code == 3
    file.write_text(HEADER + "Another claim;fire;1\n")
    result = run(environment, file, "--resume")
    assert result.exit_code == 2
    assert "the file has another size than then" in shown(result)
    script.judge = lambda content: ""
    again = run(environment, file)
    assert again.exit_code == 0
    assert "this one begins again" in shown(again)


def ended(process: subprocess.Popen[str], how: signal.Signals) -> str:
    """Ends a process by a signal, and returns its errors. Python may drop an interrupt that falls into a finaliser."""
    for _ in range(5):
        process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=60)[1]
    raise AssertionError(f"{how.name} does not end it")


@pytest.mark.server
@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_a_process_that_ends_in_the_middle_is_resumed(
    how: signal.Signals, script: Script, environment: dict[str, str], tmp_path: Path
) -> None:
    """The service holds the 201st claim until the process has ended, and does not store it: it ends in the middle."""
    reached, release = threading.Event(), threading.Event()

    def judge(content: bytes) -> str:
        if b"claim 201 " in content and not reached.is_set():
            reached.set()
            release.wait(300)
            raise RuntimeError("the stream has ended")
        return "too_short" if b"0 " in content else ""

    script.judge = judge
    file, rejected = tmp_path / "claims.csv", tmp_path / "rejected.jsonl"
    rows = [f"claim {n} of many;{'storm' if n % 7 == 0 else 'fire'};1\n" for n in range(1, 401)]
    file.write_text(HEADER + "".join(rows))
    command = [sys.executable, "-m", "openledger_cli", *words(file, "--rejected", str(rejected))]
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert reached.wait(300), process.communicate(timeout=10)
        stderr = ended(process, how)
    finally:
        release.set()
        process.kill()
        process.wait(60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        (progress,) = tmp_path.glob("*import-progress.json")
        done = json.loads(progress.read_text())["done"]["rows"]
        assert f"stopped after row {done}: interrupted" in stderr
        assert done <= 200
    resumed = run(environment, file, "--rejected", str(rejected), "--resume", "--json")
    found = json.loads(resumed.stdout)
    refused_here = {n for n in range(1, 401) if n % 7 == 0}
    refused_there = set(range(10, 401, 10)) - refused_here
    assert texts(script) == [f"claim {n} of many" for n in range(1, 401) if n not in refused_here]
    listed = [json.loads(line)["row"] for line in rejected.read_text().splitlines()]
    assert listed == sorted(refused_here | refused_there)
    assert found["rejected_by_rule"] == {
        "label_not_allowed": len(refused_here),
        "too_short": len(refused_there),
    }
    assert found["accepted"] + found["already_present"] + found["rejected"] == found["rows"] == 400


def suggestion(*words: str) -> str:
    result = CliRunner().invoke(app, ["datanet", "suggest", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_definition_is_suggested_with_a_comment_for_each_guess(tmp_path: Path) -> None:
    path = tmp_path / "claims_2025.csv"
    rows = [f"The insured says that item {n} was lost;{['fire', 'water'][n % 2]};{n};\n" for n in range(40)]
    path.write_text("Report;Cause;Sum, EUR;empty\n" + "".join(rows) + "Lost;fire;;\n")
    text = suggestion(str(path), "--licence", "CC-BY-4.0")
    found = ParseDict(tomllib.loads(text), pb.Datanet())
    assert (found.display_name, found.licence) == ("claims 2025", "CC-BY-4.0")
    report, cause, amount = found.schema.fields
    assert (report.name, report.required, report.max_length) == ("report", True, 80)
    assert (cause.name, cause.required, list(cause.allowed_values)) == ("cause", True, ["fire", "water"])
    assert (amount.name, amount.required, list(amount.allowed_values)) == ("sum_eur", False, [])
    assert found.schema.prompt_template == "Report: {report}\nCause:"
    assert found.schema.completion_template == " {cause}"
    assert found.policy.min_words == 1
    for comment in (
        "# Derived from all 41 rows of claims_2025.csv.",
        "# The column 'empty' is left out",
        "# import it with --map 'sum_eur=Sum, EUR'",
        "required = false # rows that lack it: 1",
        "# 2 different values in 41 rows look like a closed list",
        "# Values of 'report' with fewer than the 4 words that are needed by default: 1.",
    ):
        assert comment in text
    first = suggestion(str(path), "--rows", "10")
    assert "# Derived from the first 10 rows" in first
    assert 'licence = "NOASSERTION"' in first
    assert json.loads(suggestion(str(path), "--json"))["schema"]["fields"][1]["name"] == "cause"


def test_a_text_of_one_character_is_said_in_the_singular(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"Claim {n},{n % 2}\n" for n in range(40)))
    text = suggestion(str(tmp_path / "a.csv"))
    assert "# the longest has 1 character\n" in text
    assert "# the longest has 8 characters\n" in text


def test_a_file_with_one_column_suggests_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nx\n")
    result = CliRunner().invoke(app, ["datanet", "suggest", str(tmp_path / "a.csv")])
    assert result.exit_code == 2
    assert "a prompt and a completion need two columns with text" in shown(result)
