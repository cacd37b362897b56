"""Per-item outcomes of one model on one suite: the object from which every statistic is recomputed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

SCHEMA = "openledger.evaluation.outcomes.v1"


class InvalidOutcomes(ValueError):
    """An outcomes object does not hold what its schema asks for, or does not match the other model's."""


@dataclass(frozen=True)
class ItemOutcome:
    """What one model did on one item."""

    item: str
    """The item's identifier, unique in the suite."""
    cluster: str
    value: float
    """In the suite's metric."""
    log_likelihoods: tuple[float, ...]
    """Natural logarithms, one for each option in the item's order (one alone where the item is a text)."""


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """One model's outcomes on one suite, in the order of the suite's items."""

    suite_digest: str
    base_digest: str
    adapter_digest: str | None
    """None: the base model itself."""
    compute: str
    """Number type of the computation; outcomes of different types are not compared."""
    items: tuple[ItemOutcome, ...]

    def to_json(self) -> dict[str, object]:
        """The object that is stored, as canonical JSON, under its digest."""
        return {
            "schema": SCHEMA,
            "suite": self.suite_digest,
            "base": self.base_digest,
            "adapter": self.adapter_digest,
            "compute": self.compute,
            "items": [{**asdict(item), "log_likelihoods": list(item.log_likelihoods)} for item in self.items],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Outcomes:
        """Reads a stored object. Raises InvalidOutcomes, saying what is wrong."""
        if value.get("schema") != SCHEMA:
            raise InvalidOutcomes(f"schema is {value.get('schema')!r}, not {SCHEMA!r}")
        items, adapter = value.get("items"), value.get("adapter")
        if not isinstance(items, list) or not items:
            raise InvalidOutcomes("items must be a list with at least one entry")
        if adapter is not None and not isinstance(adapter, str):
            raise InvalidOutcomes("adapter must be a digest or null")
        return cls(
            suite_digest=_text(value, "suite"),
            base_digest=_text(value, "base"),
            adapter_digest=adapter,
            compute=_text(value, "compute"),
            items=tuple(_item(number, item) for number, item in enumerate(items)),
        )


def check_pair(base: Outcomes, tuned: Outcomes) -> None:
    """Raises InvalidOutcomes unless the two models answered the same items alike, each once."""
    for what, left, right in (
        ("suite", base.suite_digest, tuned.suite_digest),
        ("base model", base.base_digest, tuned.base_digest),
        ("compute", base.compute, tuned.compute),
        ("items", _identities(base.items), _identities(tuned.items)),
    ):
        if left != right:
            raise InvalidOutcomes(f"the two models' outcomes differ in {what}: they cannot be paired")
    if base.adapter_digest is not None or tuned.adapter_digest is None:
        raise InvalidOutcomes("the first outcomes must be the base model's, the second an adapter's")
    if len({item.item for item in base.items}) != len(base.items):
        raise InvalidOutcomes("an item stands twice")


def _identities(items: Sequence[ItemOutcome]) -> list[tuple[str, str]]:
    return [(item.item, item.cluster) for item in items]


def _item(number: int, value: object) -> ItemOutcome:
    if not isinstance(value, dict):
        raise InvalidOutcomes(f"item {number} is not an object")
    scores, numbers = value.get("log_likelihoods"), (int, float)
    if not isinstance(value.get("value"), numbers) or not isinstance(scores, list):
        raise InvalidOutcomes(f"item {number} lacks value or log_likelihoods")
    if not all(isinstance(score, numbers) for score in scores):
        raise InvalidOutcomes(f"item {number} has a log-likelihood that is not a number")
    return ItemOutcome(
        item=_text(value, "item"),
        cluster=_text(value, "cluster"),
        value=float(value["value"]),
        log_likelihoods=tuple(map(float, scores)),
    )


def _text(value: Mapping[str, object], key: str) -> str:
    found = value.get(key)
    if not isinstance(found, str):
        raise InvalidOutcomes(f"{key} must be a string")
    return found
