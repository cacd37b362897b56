"""The gate policy: which suites a model must pass, within which margins, and how many people decide what.

A suite is named with the rule that scores it and the version of its items, so another way to count is another policy.

A policy is a value, named by the digest of its canonical JSON. A model's effective policy is a policy that its intent
made stricter, never looser: `stricter` makes it, `looser` says in what one policy asks for less than another.
Needs nothing but the standard library and `identity`, because the control plane reads policies without numpy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from evalstats.rules import Rule
from identity.digest import digest_json

SCHEMA = "openledger.gate-policy.v2"
SCHEMA_V1 = "openledger.gate-policy.v1"
"""Of a policy in which no suite names its rule or version. Such a policy keeps this form, and so its digest."""

MOST_ITEMS = 1_000_000
MOST_SUITES = 64
MOST_PEOPLE = 100
HIGHEST_ALPHA = 0.2
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_VERSION = re.compile(r"sha256:[0-9a-f]{64}")


class Role(StrEnum):
    """What a suite must show."""

    DOMAIN = "domain"
    """The tuned model is better than its base by more than the margin (zero: better at all)."""
    RETAINED = "retained"
    """The tuned model is not worse than its base by the margin or more."""


class Verdict(StrEnum):
    """What the gate says about a suite, or about a model."""

    PASS = "pass"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    """Neither is shown by all items that the policy allows, or the suite has. It is no pass."""
    INCOMPLETE = "incomplete"
    """A suite of the policy was not measured, or not to its end. It is no pass."""


class InvalidPolicy(ValueError):
    """A policy that cannot hold. `field` says where (as `suites[0].margin`), `expected` what would be right."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field} is {value!r}; expected {expected}")
        self.field = field
        self.value = value
        self.expected = expected


@dataclass(frozen=True, kw_only=True)
class SuitePolicy:
    """What a model must show on one suite. Raises InvalidPolicy."""

    name: str
    role: Role
    margin: float
    """Retained: the loss that is too large. Domain: the gain to exceed. In the suite's unit."""
    items: int
    """Most items that are scored. Scoring stops as soon as the suite's verdict is reached."""
    rule: str = ""
    """Name of the rule that makes a value of log-likelihoods (`evalstats.rules.Rule`); "" leaves it to the suite."""
    version: str = ""
    """Digest of all items that the suite has, and of their template (`evalstats.records.suite_version`); "" for any."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or _NAME.fullmatch(self.name) is None:
            raise InvalidPolicy("name", self.name, "1 to 63 of a-z, 0-9, '_', '.', '-'")
        if self.role not in tuple(Role):
            raise InvalidPolicy("role", self.role, " or ".join(Role))
        object.__setattr__(self, "role", Role(self.role))
        margin = _number("margin", self.margin)
        if self.role is Role.RETAINED and not 0 < margin < 1:
            raise InvalidPolicy("margin", self.margin, "a number above 0 and below 1 for a retained suite")
        if not 0 <= margin < 1:
            raise InvalidPolicy("margin", self.margin, "a number from 0 and below 1 for a domain suite")
        object.__setattr__(self, "margin", abs(margin))  # -0.0 would have another digest
        _whole("items", self.items, 2, MOST_ITEMS)
        if not isinstance(self.rule, str) or (self.rule and self.rule not in tuple(Rule)):
            raise InvalidPolicy("rule", self.rule, f"one of {', '.join(Rule)}, or nothing")
        if not isinstance(self.version, str) or (self.version and not _VERSION.fullmatch(self.version)):
            raise InvalidPolicy("version", self.version, "sha256: and 64 hexadecimal digits, or nothing")

    def scored_otherwise(self, rule: str, version: str) -> list[str]:
        """Returns in what a suite of this rule and version is not the one that the policy names, a sentence each."""
        found = []
        if self.rule and rule != self.rule:
            found.append(f"suite {self.name}: scored by {rule or 'any rule'}, not by {self.rule}")
        if self.version and version != self.version:
            found.append(f"suite {self.name}: version {version or 'any'} is not {self.version}")
        return found

    def to_json(self, *, named: bool) -> dict[str, Any]:
        """Returns a JSON object; with the rule and the version where `named`."""
        content = {**asdict(self), "role": self.role.value}
        return content if named else {field: content[field] for field in _V1_FIELDS}


@dataclass(frozen=True, kw_only=True)
class People:
    """How many distinct people a decision needs. Raises InvalidPolicy."""

    promote: int = 1
    """To serve a version that passed."""
    override: int = 2
    """To serve one that did not: who asks for it and who approve, together."""
    loosen: int = 2
    """To make the policy looser, counted likewise."""

    def __post_init__(self) -> None:
        for name, least in (("promote", 1), ("override", 2), ("loosen", 2)):
            _whole(name, getattr(self, name), least, MOST_PEOPLE)


@dataclass(frozen=True, kw_only=True)
class GatePolicy:
    """What a model must show before it is served. Raises InvalidPolicy.

    Suites are kept in the order of their names, so that equal policies have equal digests.
    """

    suites: tuple[SuitePolicy, ...]
    alpha: float = 0.05
    """Highest chance to pass a model whose true loss on a retained suite is the margin or more; and highest chance to
    fail one whose true loss is within every margin."""
    seed: int = 0
    """Of the fixed order of each suite's items. Another seed is a fresh draw."""
    people: People = field(default_factory=People)

    def __post_init__(self) -> None:
        names = [suite.name for suite in self.suites]
        if not 1 <= len(names) <= MOST_SUITES:
            raise InvalidPolicy("suites", names, f"1 to {MOST_SUITES} suites")
        for number, name in enumerate(names):
            if name in names[:number]:
                raise InvalidPolicy(f"suites[{number}].name", name, "a name that no other suite has")
        object.__setattr__(self, "suites", tuple(sorted(self.suites, key=lambda suite: suite.name)))
        alpha = _number("alpha", self.alpha)
        if not 0 < alpha <= HIGHEST_ALPHA:
            raise InvalidPolicy("alpha", self.alpha, f"a number above 0, at most {HIGHEST_ALPHA}")
        object.__setattr__(self, "alpha", alpha)
        _whole("seed", self.seed, 0, 2**63 - 1)

    @property
    def retained(self) -> int:
        """Number of retained suites."""
        return sum(suite.role is Role.RETAINED for suite in self.suites)

    @property
    def digest(self) -> str:
        """Name of the policy: sha256 of its canonical JSON."""
        return digest_json(self.to_json())

    def suite(self, name: str) -> SuitePolicy | None:
        """Returns the suite of that name, if the policy has one."""
        return next((suite for suite in self.suites if suite.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Returns the object whose canonical JSON is stored under `digest`."""
        named = any(suite.rule or suite.version for suite in self.suites)
        return {
            "schema": SCHEMA if named else SCHEMA_V1,
            "alpha": self.alpha,
            "seed": self.seed,
            "people": asdict(self.people),
            "suites": [suite.to_json(named=named) for suite in self.suites],
        }

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Reads a policy. Raises InvalidPolicy for a missing, unknown or impossible field."""
        top = _object("policy", value, {"schema", "alpha", "seed", "people", "suites"})
        if top["schema"] not in (SCHEMA, SCHEMA_V1):
            raise InvalidPolicy("schema", top["schema"], f"{SCHEMA!r} or {SCHEMA_V1!r}")
        fields = _V1_FIELDS if top["schema"] == SCHEMA_V1 else _FIELDS
        people = _object("people", top["people"], {"promote", "override", "loosen"})
        with _within("people"):
            decided = People(**people)
        suites = top["suites"]
        if not isinstance(suites, list):
            raise InvalidPolicy("suites", suites, "a list")
        return cls(
            suites=tuple(_suite(f"suites[{number}]", suite, fields) for number, suite in enumerate(suites)),
            alpha=top["alpha"],
            seed=top["seed"],
            people=decided,
        )


def looser(candidate: GatePolicy, reference: GatePolicy) -> list[str]:
    """Returns in what `candidate` asks for less than `reference`, a sentence each; empty when it is at least as strict.

    A different most number of items is not looser: the test holds its error at any number, so fewer items only make a
    pass less likely. Another seed counts as looser, because a fresh draw of items is a second attempt; so does another
    rule or version of a suite, and none where the reference names one.
    """
    found = []
    for wanted in reference.suites:
        offered = candidate.suite(wanted.name)
        if offered is None:
            found.append(f"suite {wanted.name} is missing")
        elif offered.role is not wanted.role:
            found.append(f"suite {wanted.name}: role {offered.role} is not {wanted.role}")
        elif wanted.role is Role.RETAINED and offered.margin > wanted.margin:
            found.append(f"suite {wanted.name}: margin {offered.margin:g} is above {wanted.margin:g}")
        elif wanted.role is Role.DOMAIN and offered.margin < wanted.margin:
            found.append(f"suite {wanted.name}: required gain {offered.margin:g} is below {wanted.margin:g}")
        if offered is not None:
            found += wanted.scored_otherwise(offered.rule, offered.version)
    if candidate.alpha > reference.alpha:
        found.append(f"alpha {candidate.alpha:g} is above {reference.alpha:g}")
    if candidate.seed != reference.seed:
        found.append(f"seed {candidate.seed} is not {reference.seed}: it draws other items")
    for name, wanted_people in asdict(reference.people).items():
        offered_people = getattr(candidate.people, name)
        if offered_people < wanted_people:
            found.append(f"people.{name} {offered_people} is below {wanted_people}")
    return found


def stricter(policy: GatePolicy, keep: Mapping[str, float]) -> GatePolicy:
    """Returns the effective policy of an intent that names margins by suite.

    Raises InvalidPolicy, whose field is `keep[NAME]`, for a suite that the policy lacks and for a margin that is looser.
    """
    suites = {suite.name: suite for suite in policy.suites}
    for name, margin in keep.items():
        place = f"keep[{name}]"
        if name not in suites:
            raise InvalidPolicy(place, margin, f"a suite of the policy: {', '.join(suites)}")
        before = suites[name]
        try:
            after = replace(before, margin=margin)
        except InvalidPolicy as error:
            raise InvalidPolicy(place, margin, error.expected) from None
        if before.role is Role.RETAINED and after.margin > before.margin:
            raise InvalidPolicy(place, margin, f"at most the policy's margin {before.margin:g}")
        if before.role is Role.DOMAIN and after.margin < before.margin:
            raise InvalidPolicy(place, margin, f"at least the policy's required gain {before.margin:g}")
        suites[name] = after
    return replace(policy, suites=tuple(suites.values()))


_V1_FIELDS = ("name", "role", "margin", "items")
_FIELDS = (*_V1_FIELDS, "rule", "version")


def settled(verdict: Verdict, suite: SuitePolicy, *, items: int, available: int) -> Verdict:
    """The verdict of a suite, INCOMPLETE where its test has none although the policy allows, and the suite has, more items."""
    if verdict is Verdict.INCONCLUSIVE and items < min(suite.items, available):
        return Verdict.INCOMPLETE
    return verdict


def overall(counted: Collection[Verdict], missing: Collection[str]) -> Verdict:
    """The verdict of a model: of the policy's suites that were measured, and of the names of those that were not.

    FAILED when one failed, whatever else is missing. Else INCOMPLETE when one is missing or has items left to ask. Else
    PASS when all passed. Else INCONCLUSIVE.
    """
    if Verdict.FAILED in counted:
        return Verdict.FAILED
    if missing or Verdict.INCOMPLETE in counted:
        return Verdict.INCOMPLETE
    return Verdict.PASS if set(counted) == {Verdict.PASS} else Verdict.INCONCLUSIVE


def _suite(place: str, value: object, fields: Collection[str]) -> SuitePolicy:
    found = _object(place, value, set(fields))
    with _within(place):
        return SuitePolicy(**found)


class _within:
    """Context in which a field of an InvalidPolicy is given the name of the object that holds it."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, InvalidPolicy):
            raise InvalidPolicy(f"{self._place}.{error.field}", error.value, error.expected) from None


def _object(place: str, value: object, fields: set[str]) -> dict[str, Any]:
    """Returns a JSON object that has exactly these fields."""
    if not isinstance(value, dict):
        raise InvalidPolicy(place, value, "an object")
    prefix = "" if place == "policy" else f"{place}."
    for name in sorted(map(str, value.keys() - fields)):
        raise InvalidPolicy(
            f"{prefix}{name}", value.get(name), f"only the fields {', '.join(sorted(fields))}"
        )
    for name in sorted(fields - value.keys()):
        raise InvalidPolicy(f"{prefix}{name}", None, "a value: the field is missing")
    return value


def _number(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidPolicy(field, value, "a finite number")
    return float(value)


def _whole(field: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidPolicy(field, value, f"a whole number from {least} to {most:,}")
