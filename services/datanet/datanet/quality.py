"""The rules a well-formed record must pass, in order; the first that refuses it gives its id and its reason.

Rules are versioned: a snapshot's manifest says which versions its records passed. Two rules need the database
and stand in `datanet.intake`: `exact_duplicate` and `contributor_cap`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from datanet import contamination, contribution, personal_data, rubbish
from datanet.contamination import GateItems
from datanet.contribution import Record, Rejection
from datanet.definition import QualityPolicy, RecordSchema
from datanet.personal_data import PersonalData

EXACT_DUPLICATE = "exact_duplicate"
CONTRIBUTOR_CAP = "contributor_cap"
REVIEW = "review"
"""The rule of a record that a person refused."""

RULE_VERSIONS = {
    "form": contribution.VERSION,
    "too_short": rubbish.VERSION,
    "rubbish": rubbish.VERSION,
    "personal_data": personal_data.VERSION,
    "contamination": contamination.VERSION,
    EXACT_DUPLICATE: 1,
    CONTRIBUTOR_CAP: 1,
}


@dataclass(frozen=True)
class Verdict:
    """What the rules say of one contribution."""

    record: Record | None
    """None when the bytes are no record."""
    rejection: Rejection | None
    keep_content: bool
    """False when the bytes may hold personal data: refused by that rule, or before it was asked."""


class Rules:
    """A Datanet's rules, ready to be asked. Safe to share by threads."""

    def __init__(self, schema: RecordSchema, policy: QualityPolicy, gate_items: GateItems | None) -> None:
        self._schema = schema
        self._policy = policy
        self._personal_data = PersonalData(policy.personal_data_entities)
        self._gate_items = gate_items

    def judge(self, data: bytes) -> Verdict:
        """The verdict on a contribution's bytes. Raises nothing: any bytes have one."""
        record = contribution.parse(data, self._schema)
        if isinstance(record, Rejection):
            return Verdict(None, record, keep_content=False)
        # Rubbish comes first: it is what makes the recognisers of personal data slow.
        rejection = self._check_text(record) or self._check_personal_data(record)
        if rejection is not None:
            return Verdict(record, rejection, keep_content=False)
        return Verdict(record, self._check_contamination(record), keep_content=True)

    def _check_text(self, record: Record) -> Rejection | None:
        text = self._schema.prompt_text(record.value)
        return rubbish.too_short(text, self._policy.min_words) or rubbish.rubbish(text)

    def _check_personal_data(self, record: Record) -> Rejection | None:
        return self._first(record, self._personal_data.check)

    def _check_contamination(self, record: Record) -> Rejection | None:
        if self._gate_items is None:
            return None
        return self._first(record, self._gate_items.check)

    def _first(self, record: Record, check: Callable[[str, str], Rejection | None]) -> Rejection | None:
        for field, text in self._schema.free_text(record.value):
            rejection = check(field, text)
            if rejection is not None:
                return rejection
        return None
