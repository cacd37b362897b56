"""A failure says where the call went, and a command that tries again says so."""

from __future__ import annotations

import pytest

from openledger_cli.caller import SaidOnce
from openledger_cli.failures import report
from openledger_client.errors import Unavailable


def test_a_call_that_nobody_answered_names_service_address_and_variable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    peer = {"service": "trainer", "address": "h:1", "variable": "OPENLEDGER_TRAINER_ADDRESS"}
    assert report(Unavailable("refused", metadata=peer)) == 1
    said = "openledger: UNAVAILABLE: refused; trainer was called at h:1: check OPENLEDGER_TRAINER_ADDRESS\n"
    assert capsys.readouterr().err == said


def test_long_waits_for_an_answer_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    waits: list[float] = []
    sleep = SaidOnce(waits.append)
    sleep(2.0)
    assert capsys.readouterr().err == ""
    for _ in range(3):
        sleep(2.0)
    assert capsys.readouterr().err == "openledger: no answer, trying again for up to 30 s; Ctrl-C stops\n"
    assert waits == [2.0] * 4
