"""docs/security.md says of every RPC who may call it, and says what the protos say."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import openledger
import pytest
from google.protobuf.descriptor import MethodDescriptor

from servicekit.server.access import rule_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
READS_WITH_A_RIGHT_OF_THEIR_OWN = ("AssessTrainingSpec", "DownloadModelVersion")
"""They change nothing, but those who may only read may not call them."""
REPEATABLE_BY_NATURE = {
    "Contribute",
    "WithdrawRecord",
    "CancelTrainingRun",
    "CancelSealOperation",
    "ApprovePromotionOverride",
    "RefusePromotionOverride",
    "ApproveGatePolicy",
    "RefuseGatePolicy",
    *READS_WITH_A_RIGHT_OF_THEIR_OWN,
}


def methods() -> dict[str, MethodDescriptor]:
    names = [found.name for found in pkgutil.walk_packages(openledger.__path__, "openledger.")]
    files = [importlib.import_module(name).DESCRIPTOR for name in names if name.endswith("_pb2")]
    services = [service for file in files for service in file.services_by_name.values()]
    return {method.name: method for service in services for method in service.methods}


def rows() -> dict[str, str]:
    """Permission by RPC, as the page has it."""
    found: dict[str, str] = {}
    for line in PAGE.read_text().splitlines():
        row = re.fullmatch(r"\| ([A-Z]\w+(?:, [A-Z]\w+)*) \| ([a-z]+\.[a-z]+\.[a-z]+) \| .+ \|", line)
        if row:
            found.update(dict.fromkeys(row[1].split(", "), row[2]))
    return found


def test_the_page_has_every_rpc_with_its_permission_and_no_other() -> None:
    assert rows() == {name: rule_of(method).permission for name, method in methods().items()}


@pytest.mark.parametrize("method", methods().values(), ids=lambda method: method.name)
def test_a_change_takes_a_request_id_or_cannot_be_changed_by_a_repeat(method: MethodDescriptor) -> None:
    permission = rule_of(method).permission or ""
    changes = not permission.endswith(".read")
    takes_one = "request_id" in method.input_type.fields_by_name
    assert takes_one == (changes and method.name not in REPEATABLE_BY_NATURE)
    if changes and not takes_one and method.name not in READS_WITH_A_RIGHT_OF_THEIR_OWN:
        section = PAGE.read_text().split("## Request ids")[1].split("##")[0]
        assert method.name in section
