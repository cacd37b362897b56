"""The whole platform, end to end: the small demo, through public APIs only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from identity.digest import canonical_json
from openledger_cli.bundle import layout
from openledger_cli.bundle.check import check_bundle
from openledger_client.errors import Unavailable
from openledger_testing.leftover_processes import processes_of

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.story]


def test_no_process_is_left_behind(demo: Path) -> None:
    assert processes_of(demo) == []


def test_every_figure_has_unit_and_source(steps: dict[str, dict[str, object]]) -> None:
    figures = [figure for step in steps.values() for figure in step["figures"]]  # type: ignore[attr-defined]
    assert len(figures) > 40
    for figure in figures:
        assert figure["unit"], figure
        assert figure["source"], figure
        if "lower" in figure:
            assert figure["lower"] - 1e-9 <= figure["value"] <= figure["upper"] + 1e-9, figure
            assert figure["sample_size"] > 0, figure


def test_each_refused_record_names_its_rule(steps: dict[str, dict[str, object]]) -> None:
    rules = steps["contribute"]["facts"]["tallies"]["careless"]["rules"]  # type: ignore[index]
    assert "personal_data" in rules
    assert sum(rules.values()) >= 8


def test_fees_are_paid_out_exactly(steps: dict[str, dict[str, object]]) -> None:
    facts = steps["settle"]["facts"]
    earned = sum(int(balance["earned"]) for balance in facts["balances"])  # type: ignore[index]
    assert earned + int(facts["dust"]) == int(facts["fee_total"])  # type: ignore[index]


def test_every_answer_is_attributed_and_on_chain_once(steps: dict[str, dict[str, object]]) -> None:
    asked = [answer["inference"] for answer in steps["answer"]["facts"]["answers"]]  # type: ignore[index]
    assert len(set(asked)) == len(asked)
    assert set(steps["attribute"]["facts"]["records"]) == set(asked)  # type: ignore[index]
    assert sum(batch["events"] for batch in steps["settle"]["facts"]["batches"]) == len(asked)  # type: ignore[index]


def test_the_bundle_is_verified_and_a_changed_byte_is_located(steps: dict[str, dict[str, object]]) -> None:
    facts = steps["verify"]["facts"]
    assert all(finding["passed"] and not finding["unchecked"] for finding in facts["findings"])  # type: ignore[index]
    assert facts["where"]  # type: ignore[index]


def test_the_report_is_one_self_contained_page(demo: Path) -> None:
    page = (demo / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "<script" not in page
    assert 'src="http' not in page


class NoChain:
    """A chain that is not there: what a bundle says of itself must already show a change."""

    chain_id = 31337

    def contract(self, address: str, abi: object) -> object:
        raise Unavailable(f"no chain here for {address}", reason="NO_CHAIN")


@pytest.mark.parametrize("name", layout.FILES)
@pytest.mark.parametrize("place", [0.001, 0.3, 0.7, 0.999])
def test_any_changed_byte_of_any_file_is_located(demo: Path, tmp_path: Path, name: str, place: float) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(demo / "bundle", copy)
    content = bytearray((copy / name).read_bytes())
    content[int(len(content) * place)] ^= 1
    (copy / name).write_bytes(content)
    findings = {finding.check: finding for finding in check_bundle(copy, NoChain())}  # type: ignore[arg-type]
    assert not findings["files"].passed
    assert name in findings["files"].detail


@pytest.mark.parametrize(
    ("field", "check"),
    [("inference", "attribution record"), ("account", "payout on chain"), ("schema", "files")],
)
def test_a_changed_index_is_located(demo: Path, tmp_path: Path, field: str, check: str) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(demo / "bundle", copy)
    index = json.loads((copy / layout.INDEX).read_text())
    index[field] = index[field][:-1] + ("0" if index[field][-1] != "0" else "1")
    (copy / layout.INDEX).write_bytes(canonical_json(index))
    findings = {finding.check: finding for finding in check_bundle(copy, NoChain())}  # type: ignore[arg-type]
    assert not findings[check].passed
    assert "no chain" not in findings[check].detail


def test_only_its_owner_can_open_the_files_of_a_running_platform(demo: Path) -> None:
    exposed = [Path(path) for path in json.loads((demo / "exposed.json").read_text())]
    # Ray opens its own folder to everyone; the folder around it is closed.
    inside_ray = demo / "state" / "ray" / "s"
    assert [path for path in exposed if not path.is_relative_to(inside_ray)] == []
