"""`openledger gate check` for scripts, and the verifier's check of the gate policy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evalstats.comparison import Method
from evalstats.order import item_order
from evalstats.outcomes import ItemOutcome, Outcomes
from evalstats.policy import GatePolicy, Role, SuitePolicy
from evalstats.records import suite_digest
from evalstats.report import Inputs, SuiteRecord, build, outcome_set
from evalstats.rules import Rule
from identity.digest import canonical_json, digest_json, sha256_bytes
from openledger_cli.__main__ import app
from openledger_cli.bundle import layout
from openledger_cli.bundle.check import Broken, Bundle, _policy

ITEMS = 300
DIGEST = "sha256:" + "0" * 64
VERSION = "models/m/versions/1"
POLICY = GatePolicy(
    suites=(
        SuitePolicy(name="domain", role=Role.DOMAIN, margin=0.0, items=ITEMS),
        SuitePolicy(name="arc_easy", role=Role.RETAINED, margin=0.05, items=ITEMS),
        SuitePolicy(name="hellaswag", role=Role.RETAINED, margin=0.05, items=ITEMS),
    )
)


def evaluated(**changes: float) -> tuple[bytes, bytes]:
    """A report and its outcomes: accuracy on each suite changed by this much."""
    order = item_order([(f"i{n}", f"i{n}") for n in range(ITEMS)], seed=POLICY.seed)
    pairs, records = [], []
    for name, change in changes.items():
        parts = {"items_digest": sha256_bytes(name.encode()), "template_digest": DIGEST}
        digest = suite_digest(name=name, rule=Rule.ACC, version="2", **parts)

        def outcomes(adapter: str | None, right: int, digest: str = digest) -> Outcomes:
            items = tuple(ItemOutcome(f"i{n}", f"i{n}", float(n < right), (0.0, -1.0)) for n in order)
            return Outcomes(
                suite_digest=digest, base_digest=DIGEST, adapter_digest=adapter, compute="cpu", items=items
            )

        pairs.append((outcomes(None, 120), outcomes(DIGEST, 120 + round(ITEMS * change))))
        suite = POLICY.suite(name)
        assert suite is not None
        records.append(
            SuiteRecord(
                name=name,
                role=suite.role,
                rule=Rule.ACC,
                version="2",
                digest=digest,
                margin=suite.margin,
                available=ITEMS,
                **parts,
            )
        )
    stored = canonical_json(outcome_set(pairs))
    inputs = Inputs(
        base_digest=DIGEST,
        adapter_digest=DIGEST,
        outcomes_digest=sha256_bytes(stored),
        suites=tuple(records),
        policy=POLICY,
        policy_source=POLICY.digest,
        method=Method(),
        compute={"device": "cpu", "dtype": "float32"},
        packages={},
    )
    return canonical_json(build(inputs, pairs)), stored


def check(folder: Path, report: bytes, outcomes: bytes, policy: bytes | None = None) -> tuple[int, str]:
    """Returns the exit code and the output of `gate check` on files."""
    (folder / "report.json").write_bytes(report)
    (folder / "outcomes.json").write_bytes(outcomes)
    words = [
        "gate",
        "check",
        "--report",
        str(folder / "report.json"),
        "--outcomes",
        str(folder / "outcomes.json"),
    ]
    if policy is not None:
        (folder / "policy.json").write_bytes(policy)
        words += ["--policy", str(folder / "policy.json")]
    result = CliRunner().invoke(app, words)
    return result.exit_code, result.output


def test_the_exit_code_is_the_verdict(tmp_path: Path) -> None:
    kept = {"domain": 0.3, "arc_easy": 0.0, "hellaswag": 0.0}
    assert check(tmp_path, *evaluated(**kept))[0] == 0
    assert check(tmp_path, *evaluated(**{**kept, "arc_easy": -0.3}))[0] == 1
    code, output = check(tmp_path, *evaluated(domain=0.3, arc_easy=0.0))
    assert (code, "hellaswag: not measured" in output) == (2, True)


def test_a_report_that_is_not_what_its_outcomes_say_has_no_verdict(tmp_path: Path) -> None:
    report, outcomes = evaluated(domain=0.3, arc_easy=-0.3, hellaswag=0.0)
    forged = json.loads(report)
    forged["gate"]["verdict"] = "pass"
    code, output = check(tmp_path, canonical_json(forged), outcomes)
    assert (code, "not what its outcomes say" in output) == (3, True)
    forged = json.loads(report)
    forged["suites"][1]["rule"] = "acc_bytes"
    code, output = check(tmp_path, canonical_json(forged), outcomes)
    assert (code, "suites[1].digest" in "".join(output.split())) == (3, True)
    assert check(tmp_path, report, b"{}")[0] == 3
    assert check(tmp_path, report, outcomes, b'{"schema": "other"}')[0] == 3
    assert CliRunner().invoke(app, ["gate", "check"]).exit_code == 3
    assert CliRunner().invoke(app, ["gate", "check", "--no-such-option"]).exit_code == 3


def test_a_policy_of_ones_own_judges_the_same_outcomes(tmp_path: Path) -> None:
    report, outcomes = evaluated(domain=0.3, arc_easy=0.0, hellaswag=0.0)
    steep = replace(POLICY, suites=tuple(_steep(suite) for suite in POLICY.suites))
    assert check(tmp_path, report, outcomes, canonical_json(POLICY.to_json()))[0] == 0
    assert check(tmp_path, report, outcomes, canonical_json(steep.to_json()))[0] == 2
    by_length = replace(POLICY, suites=tuple(replace(suite, rule="acc_bytes") for suite in POLICY.suites))
    code, output = check(tmp_path, report, outcomes, canonical_json(by_length.to_json()))
    assert (code, "scored by acc, not by acc_bytes" in " ".join(output.split())) == (3, True)


def _steep(suite: SuitePolicy) -> SuitePolicy:
    return replace(suite, margin=0.9) if suite.role is Role.DOMAIN else suite


def bundle(report: bytes, entries: list[dict[str, Any]], **version: Any) -> Bundle:
    content = {
        "name": VERSION,
        "policy_digest": POLICY.digest,
        "report_digest": sha256_bytes(report),
        "failed_reports": [],
        **version,
    }
    parsed = {
        layout.REPORT: json.loads(report),
        layout.POLICY: POLICY.to_json(),
        layout.VERSION: content,
        layout.PROMOTIONS: entries,
    }
    raw = {layout.REPORT: report, layout.POLICY: canonical_json(POLICY.to_json())}
    return Bundle(Path(), raw, parsed)


def entry(report: bytes, kind: str, people: list[str], previous: str = "", number: int = 1) -> dict[str, Any]:
    return {
        "number": number,
        "previous": previous,
        "version": VERSION,
        "kind": kind,
        "report": sha256_bytes(report),
        "policy": POLICY.digest,
        "people": people,
        "reason": "for the analysts",
    }


def test_the_verifier_accepts_a_model_that_met_its_policy() -> None:
    report, _ = evaluated(domain=0.3, arc_easy=0.0, hellaswag=0.0)
    assert "met" in _policy(bundle(report, [entry(report, "passed", ["alice"])]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"domain": 0.3, "arc_easy": 0.0}, "suite hellaswag was not measured"),
        ({"domain": 0.3, "arc_easy": -0.3, "hellaswag": 0.0}, "suite arc_easy did not pass"),
    ],
)
def test_the_verifier_refuses_a_model_that_broke_its_policy_and_says_in_what(
    changes: dict[str, float], said: str
) -> None:
    report, _ = evaluated(**changes)
    for kind, people in (
        ("passed", ["alice"]),
        ("overridden", ["alice"]),
        ("overridden", ["alice", "Alice"]),
    ):
        with pytest.raises(Broken, match=said):
            _policy(bundle(report, [entry(report, kind, people)]))
    assert "NOT MET" in _policy(bundle(report, [entry(report, "overridden", ["alice", "bob"])]))


def test_the_verifier_refuses_a_failed_report_that_nothing_lifts_and_a_broken_history() -> None:
    report, _ = evaluated(domain=0.3, arc_easy=0.0, hellaswag=0.0)
    failed = [{"report_digest": DIGEST, "policy_digest": POLICY.digest, "override": ""}]
    passed = entry(report, "passed", ["alice"])
    with pytest.raises(Broken, match="no override lifts it"):
        _policy(bundle(report, [passed], failed_reports=failed))
    with pytest.raises(Broken, match="follows"):
        _policy(bundle(report, [passed, entry(report, "passed", ["alice"], DIGEST, 2)]))
    with pytest.raises(Broken, match="never promoted"):
        _policy(bundle(report, []))
    assert "met" in _policy(bundle(report, [passed, entry(report, "passed", ["a"], digest_json(passed), 2)]))
