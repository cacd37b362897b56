"""The gate policies of this service: the default, which suites a policy may name, and how policies are put together.

What a policy is, and when one is looser than another, is decided in `evalstats.policy`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files

from evalstats.policy import GatePolicy, InvalidPolicy, People, Role, SuitePolicy
from identity.digest import canonical_json
from identity.names import GatePolicyName
from servicekit.errors import FailedPrecondition
from trainer.contract.evaluation import DOMAIN, SUITE_NAMES, SUITES

DEFAULT = GatePolicyName("default")
"""What a model is held to whose runs name no policy; and what every other policy is compared with."""


@cache
def shipped_default() -> GatePolicy:
    """Returns version 1 of the default policy, which comes with this package."""
    return GatePolicy.from_json(
        json.loads(files("trainer").joinpath("default_gate_policy.json").read_bytes())
    )


def to_bytes(policy: GatePolicy) -> bytes:
    """Returns the canonical JSON, whose sha256 is the policy's digest."""
    return canonical_json(policy.to_json())


def from_bytes(content: bytes) -> GatePolicy:
    """Reads what `to_bytes` returned."""
    return GatePolicy.from_json(json.loads(content))


def named(policy: GatePolicy) -> GatePolicy:
    """Returns the policy with the rule and the version of each suite that names none, as this service measures it."""
    return replace(policy, suites=tuple(_named(suite) for suite in policy.suites))


def _named(suite: SuitePolicy) -> SuitePolicy:
    known = SUITES.get(suite.name)
    if known is None:
        return suite
    return replace(suite, rule=suite.rule or known.rule, version=suite.version or known.version)


def check_measurable(policy: GatePolicy) -> None:
    """Raises FailedPrecondition for a policy that names another rule or version of a suite than this service measures.

    A policy is checked when it is created; the service may have been upgraded since.
    """
    found = [sentence for suite in policy.suites for sentence in _measured_otherwise(suite)]
    if found:
        raise FailedPrecondition(
            "GATE_POLICY_NOT_MEASURABLE",
            f"the gate policy asks for what this service does not measure: {'; '.join(found)}. A new version of the policy, "
            "approved by a second person, can name what it does",
        )


def _measured_otherwise(suite: SuitePolicy) -> list[str]:
    known = SUITES.get(suite.name)
    if known is None:
        return [f"suite {suite.name} is unknown"]
    # What the data decide is known to the job alone, which checks it.
    return suite.scored_otherwise(known.rule or suite.rule, known.version or suite.version)


def check_suites(policy: GatePolicy) -> None:
    """Raises InvalidPolicy for a suite that this service cannot measure, or not in that role or by that rule and version."""
    for number, suite in enumerate(policy.suites):
        if suite.name not in SUITE_NAMES:
            raise InvalidPolicy(f"suites[{number}].suite", suite.name, f"one of {', '.join(SUITE_NAMES)}")
        role = Role.DOMAIN if suite.name == DOMAIN else Role.RETAINED
        if suite.role is not role:
            raise InvalidPolicy(f"suites[{number}].role", suite.role.value, f"{role} for {suite.name}")
        known = SUITES[suite.name]
        for field, asked, measured in (
            ("rule", suite.rule, known.rule),
            ("version", suite.version, known.version),
        ):
            if measured and asked != measured:
                raise InvalidPolicy(f"suites[{number}].{field}", asked, f"{measured} for {suite.name}")


def tightened(policy: GatePolicy, keep: Mapping[str, float]) -> GatePolicy:
    """Returns the policy with each margin that is stricter in `keep`; what is looser there, or unknown, changes nothing.

    `evalstats.policy.stricter` refuses those instead. This is for an intent that was accepted under another version.
    """
    return replace(policy, suites=tuple(_tightened(suite, keep) for suite in policy.suites))


def combined(one: GatePolicy, other: GatePolicy) -> GatePolicy:
    """Returns the loosest policy that is at least as strict as both, in the item order of `one`."""
    suites = {suite.name: suite for suite in one.suites}
    for suite in other.suites:
        known = suites.get(suite.name, suite)
        strict = _tightened(known, {suite.name: suite.margin})
        suites[suite.name] = replace(
            strict, rule=strict.rule or suite.rule, version=strict.version or suite.version
        )
    people = People(
        promote=max(one.people.promote, other.people.promote),
        override=max(one.people.override, other.people.override),
        loosen=max(one.people.loosen, other.people.loosen),
    )
    return replace(one, suites=tuple(suites.values()), alpha=min(one.alpha, other.alpha), people=people)


def _tightened(suite: SuitePolicy, keep: Mapping[str, float]) -> SuitePolicy:
    margin = keep.get(suite.name, suite.margin)
    stricter = margin > suite.margin if suite.role is Role.DOMAIN else margin < suite.margin
    try:
        return replace(suite, margin=margin) if stricter else suite
    except InvalidPolicy:  # a margin of 0, which an earlier version accepted
        return suite
