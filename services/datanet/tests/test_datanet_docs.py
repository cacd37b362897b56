"""The definition that docs/data.md shows is one that the service takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from google.protobuf.json_format import ParseDict
from openledger.datanet.v1 import datanet_pb2 as pb

from datanet.convert import to_datanet

PAGE = Path(__file__).parents[3] / "docs" / "data.md"


def test_the_documented_definition_is_valid() -> None:
    found = re.search(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    message = ParseDict(tomllib.loads(found.group(1)), pb.Datanet())
    datanet = to_datanet("datanets/threat-intel", message)
    datanet.validate()
    assert datanet.schema.prompt_text({"text": "a", "tactic": "b"}) == "a"
