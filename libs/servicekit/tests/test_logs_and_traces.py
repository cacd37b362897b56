"""A log line and a metric can be found again: by its trace, by its name."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from servicekit.settings import ServiceSettings
from servicekit.telemetry import traces as telemetry
from servicekit.telemetry.logs import JsonFormatter, TextFormatter, configure_logs
from servicekit.telemetry.metrics import counter, histogram


@pytest.fixture(autouse=True)
def _own_handlers_go() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    for handler in list(root.handlers):
        if isinstance(handler.formatter, JsonFormatter | TextFormatter):
            root.removeHandler(handler)


def log_lines(capsys: pytest.CaptureFixture[str], text: str) -> list[str]:
    """Returns the lines with this text: threads of other tests may log meanwhile."""
    captured = capsys.readouterr()
    assert text not in captured.out
    return [line for line in captured.err.splitlines() if text in line]


def test_a_log_line_is_json_with_its_data_and_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("datanet", ServiceSettings(auth_mode="development"))
    with telemetry.tracer.start_as_current_span("work") as span:
        logging.getLogger("datanet").warning("sealed %s", "snapshot", extra={"records": 3})
    (line,) = map(json.loads, log_lines(capsys, "sealed snapshot"))
    assert line["message"] == "sealed snapshot"
    assert line["records"] == 3
    assert line["service"] == "datanet"
    assert int(line["trace_id"], 16) == span.get_span_context().trace_id
    assert int(line["span_id"], 16) == span.get_span_context().span_id


def test_a_traceback_stays_within_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("datanet", "INFO", "json")
    try:
        raise ValueError("several\nlines")
    except ValueError:
        logging.getLogger("datanet").exception("failed")
    (line,) = map(json.loads, log_lines(capsys, "several"))
    assert "ValueError: several\nlines" in line["exception"]


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("datanet", "INFO", "text")
    logging.getLogger("datanet").info("sealed", extra={"records": 3})
    (line,) = log_lines(capsys, "sealed")
    assert line.endswith("datanet INFO sealed records=3")


def test_a_second_set_up_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("one", "INFO", "json")
    configure_logs("two", "WARNING", "text")
    logging.getLogger("x").info("not severe")
    logging.getLogger("x").warning("severe")
    assert len(log_lines(capsys, "severe")) == 1


def test_logs_follow_a_replaced_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logs("datanet", "INFO", "text")
    logging.getLogger("x").warning("one")
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    logging.getLogger("x").warning("two")
    captured = capsys.readouterr()
    assert "one" in captured.err
    assert "two" in captured.out


def test_a_trace_travels_as_headers_and_back() -> None:
    telemetry.configure("datanet", ServiceSettings(auth_mode="development"))
    with telemetry.tracer.start_as_current_span("here") as span:
        headers = telemetry.inject()
        assert headers["traceparent"] == telemetry.current_traceparent()
    assert telemetry.inject() == {}
    context = telemetry.extract([("authorization", "Bearer x"), *headers.items(), ("x-bin", b"\xff")])
    with telemetry.tracer.start_as_current_span("there", context=context):
        assert int(telemetry.current_trace_id(), 16) == span.get_span_context().trace_id


def test_malformed_headers_begin_a_new_trace() -> None:
    with telemetry.tracer.start_as_current_span(
        "there", context=telemetry.extract({"traceparent": "malformed"})
    ):
        assert len(telemetry.current_trace_id()) == 32


def test_metrics_have_the_platforms_prefix() -> None:
    with pytest.raises(ValueError, match="openledger_"):
        counter("sealed_total", "Snapshots.")
    with pytest.raises(ValueError, match="_total"):
        counter("openledger_sealed", "Snapshots.")
    with pytest.raises(ValueError, match="openledger_"):
        histogram("seconds", "Time.")
