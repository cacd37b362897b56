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
from trainer.contract.evaluation import DOMAIN, SUITE_NAMES

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


def check_suites(policy: GatePolicy) -> None:
    """Raises InvalidPolicy for a suite that this service cannot measure, or not in that role."""
    for number, suite in enumerate(policy.suites):
        if suite.name not in SUITE_NAMES:
            raise InvalidPolicy(f"suites[{number}].suite", suite.name, f"one of {', '.join(SUITE_NAMES)}")
        role = Role.DOMAIN if suite.name == DOMAIN else Role.RETAINED
        if suite.role is not role:
            raise InvalidPolicy(f"suites[{number}].role", suite.role.value, f"{role} for {suite.name}")


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
        suites[suite.name] = _tightened(known, {suite.name: suite.margin})
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
