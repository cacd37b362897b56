"""The examples of docs/client.md run as written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from openledger_client import Addresses, Client
from openledger_client.services import ALL
from openledger_client.testing import OBJECT, Script

PAGE = Path(__file__).parents[3] / "docs" / "client.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_examples_run(
    addresses: Addresses,
    client: Client,
    script: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for service in ALL:
        monkeypatch.setenv(service.variable("address"), addresses.given[service.name])
    known: dict[str, Any] = {"folder": tmp_path}
    assert len(EXAMPLES) == 12
    schema = script.datanet.schema
    schema.fields.add(name="text", required=True)
    schema.fields.add(name="tactic", allowed_values=["discovery"])
    for number, example in enumerate(EXAMPLES):
        if "trainer.example" not in example:  # addresses and certificates of the reader's own
            known |= {"client": client}
            exec(compile(example, f"{PAGE.name}, example {number + 1}", "exec"), known)
    printed = capsys.readouterr().out
    assert "BATCH_STATE_FINAL" in printed
    assert printed.count("datanets/d") == 8
    assert "datanets/threat-intel/snapshots/1\n" in printed
    assert script.stored == [
        b'{"text": "Emotet runs cmd.exe.", "tactic": "execution"}',
        b'{"text":"Qakbot lists the running processes.","tactic":"discovery"}',
    ]
    assert "3 tactic label_not_allowed not an allowed value; allowed are 'discovery'\n" in printed
    assert (tmp_path / "records.jsonl").read_bytes() == OBJECT
