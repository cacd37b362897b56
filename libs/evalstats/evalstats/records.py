"""The form of a report's inputs: suites and outcome sets. Needs nothing but the standard library and `identity`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalstats.order import first_out_of_order
from evalstats.outcomes import Outcomes, check_pair
from evalstats.policy import GatePolicy, InvalidPolicy, Role, SuitePolicy
from evalstats.rules import Rule
from identity.digest import digest_json

SCHEMA = "openledger.evaluation.report.v2"
OUTCOME_SET_SCHEMA = "openledger.evaluation.outcome-set.v1"


class InvalidReport(ValueError):
    """A report or outcome set that does not have the form its schema asks for."""


@dataclass(frozen=True, kw_only=True)
class SuiteRecord:
    """What a report says about a suite before any result."""

    name: str
    role: Role
    rule: Rule
    version: str
    """See `suite_version`; a word in reports of before."""
    digest: str
    """Of the four things that make a suite: items, template, rule and version."""
    items_digest: str
    template_digest: str
    margin: float
    """The policy's, where the policy names the suite."""
    available: int
    """Items that the suite has at all: scoring ends there, whatever the policy allows."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise InvalidReport(f"suite {self.name}: margin {self.margin} must be a number, at least 0")
        if self.available < 1:
            raise InvalidReport(f"suite {self.name}: {self.available} items available, at least 1 is needed")

    @property
    def named(self) -> str:
        """What `digest` is when it names this rule, this version and these items."""
        return suite_digest(
            name=self.name,
            rule=self.rule,
            version=self.version,
            template_digest=self.template_digest,
            items_digest=self.items_digest,
        )


def suite_digest(*, name: str, rule: Rule, version: str, template_digest: str, items_digest: str) -> str:
    """A suite's name everywhere: the same digest asks the same questions and counts them alike."""
    return digest_json(
        {
            "kind": "evaluation-suite",
            "name": name,
            "rule": rule.value,
            "version": version,
            "template": template_digest,
            "items": items_digest,
        }
    )


def suite_version(*, name: str, template_digest: str, population: str) -> str:
    """The version of a suite: digest of all items that it has, whatever their order and how many are asked.

    `population`: digest of the items in the order of their ids.
    """
    return digest_json(
        {
            "kind": "evaluation-suite-version",
            "name": name,
            "template": template_digest,
            "population": population,
        }
    )


def outcome_set(pairs: Sequence[tuple[Outcomes, Outcomes]]) -> dict[str, object]:
    """The object that a report's statistics rest on: for each suite, base and tuned outcomes, in suite
    order."""
    return {
        "schema": OUTCOME_SET_SCHEMA,
        "suites": [{"base": base.to_json(), "tuned": tuned.to_json()} for base, tuned in pairs],
    }


def read_outcome_set(value: Mapping[str, Any]) -> list[tuple[Outcomes, Outcomes]]:
    """Raises InvalidReport or InvalidOutcomes."""
    suites = value.get("suites")
    if value.get("schema") != OUTCOME_SET_SCHEMA or not isinstance(suites, list):
        raise InvalidReport(f"not an outcome set: schema {value.get('schema')!r}")
    if not all(
        isinstance(s, dict) and isinstance(s.get("base"), dict) and isinstance(s.get("tuned"), dict)
        for s in suites
    ):
        raise InvalidReport("each suite of an outcome set needs the objects base and tuned")
    return [(Outcomes.from_json(suite["base"]), Outcomes.from_json(suite["tuned"])) for suite in suites]


def check_outcomes(
    record: SuiteRecord, base: Outcomes, tuned: Outcomes, *, models: tuple[str, str], seed: int
) -> None:
    """Raises InvalidReport or InvalidOutcomes unless the outcomes are of this suite and of these models (base, adapter), and
    stand in the order of the seed."""
    if base.suite_digest != record.digest:
        raise InvalidReport(f"{record.name} is {record.digest}, its outcomes are of {base.suite_digest}")
    if (base.base_digest, tuned.adapter_digest) != models:
        raise InvalidReport(f"the outcomes of {record.name} belong to other models than the report's")
    if len(base.items) > record.available:
        raise InvalidReport(
            f"{record.name} has {record.available} items, its outcomes are of {len(base.items)}"
        )
    wrong = first_out_of_order([(item.item, item.cluster) for item in base.items], seed)
    if wrong is not None:
        raise InvalidReport(
            f"{record.name}: item {wrong} is {base.items[wrong].item}, which does not stand there in the order of "
            f"seed {seed}"
        )
    check_pair(base, tuned)


def tested(record: SuiteRecord, policy: GatePolicy, items: int) -> SuitePolicy:
    """What the policy asks of the suite; of one that it does not name, what the record says. Raises InvalidReport where the
    record has another role, margin, rule or version than the policy."""
    suite = policy.suite(record.name)
    if suite is None:
        try:
            return SuitePolicy(name=record.name, role=record.role, margin=record.margin, items=max(2, items))
        except InvalidPolicy as error:
            raise InvalidReport(f"suite {record.name}: {error}") from error
    if (record.role, record.margin) != (suite.role, suite.margin):
        raise InvalidReport(
            f"suite {record.name}: {record.role} within {record.margin:g}, the policy says {suite.role} within "
            f"{suite.margin:g}"
        )
    otherwise = suite.scored_otherwise(record.rule.value, record.version)
    if otherwise:
        raise InvalidReport("; ".join(otherwise))
    return suite


def suite_record(suite: Mapping[str, Any]) -> SuiteRecord:
    """Reads a suite of a report. Raises KeyError, TypeError or ValueError."""
    return SuiteRecord(
        name=suite["name"],
        role=Role(suite["role"]),
        rule=Rule(suite["rule"]),
        version=suite["version"],
        digest=suite["digest"],
        items_digest=suite["items"],
        template_digest=suite["template"],
        margin=float(suite["margin"]),
        available=int(suite["available"]),
    )
