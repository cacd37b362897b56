"""The rules a well-formed record must pass, in order. The first rule that rejects a record names itself and the reason.

Rules are versioned: a snapshot's manifest says which versions its records passed. Two rules depend on the records
that are already stored, and are part of `datanet.decision`: `exact_duplicate` and `contributor_cap`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from datanet import contamination, contribution, low_quality, near_duplicates, personal_data
from datanet.contamination import EvaluationItems
from datanet.contribution import Record, Rejection
from datanet.definition import QualityPolicy, RecordSchema
from datanet.personal_data import PersonalData

EXACT_DUPLICATE = "exact_duplicate"
CONTRIBUTOR_CAP = "contributor_cap"
REVIEW = "review"
"""The rule of a record that a person rejected."""
WITHDRAWN = "withdrawn"
"""The rule of a record that its own contributor withdrew: others may send the text. One that the owner of the Datanet or an
administrator withdrew has no rule, and no contributor may send it again."""

CONTRIBUTOR = "contributor"
"""The rule of a record that a person rejected or withdrew because of who contributed it: others may send the text."""

RULE_VERSIONS = {
    "form": contribution.VERSION,
    "too_short": low_quality.VERSION,
    low_quality.LOW_QUALITY: low_quality.VERSION,
    "personal_data": personal_data.VERSION,
    "contamination": contamination.VERSION,
    EXACT_DUPLICATE: 1,
    CONTRIBUTOR_CAP: 1,
    "near_duplicates": near_duplicates.VERSION,
}


@dataclass(frozen=True)
class Verdict:
    """What the rules decided about one contribution."""

    record: Record | None
    """None if the bytes are not a record."""
    rejection: Rejection | None


class Rules:
    """A Datanet's rules. Safe to share between threads."""

    def __init__(
        self, schema: RecordSchema, policy: QualityPolicy, evaluation_items: EvaluationItems | None
    ) -> None:
        self._schema = schema
        self._policy = policy
        self._personal_data = PersonalData(policy.personal_data_entities)
        self._evaluation_items = evaluation_items

    def judge(self, data: bytes) -> Verdict:
        """Returns the verdict on a contribution. Any bytes have one: nothing raises."""
        record = contribution.parse(data, self._schema)
        if isinstance(record, Rejection):
            return Verdict(None, record)
        # Low quality comes first: gibberish is what makes the recognisers of personal data slow.
        rejection = self._check_text(record) or self._check_personal_data(record)
        return Verdict(record, rejection or self._check_contamination(record))

    def _check_text(self, record: Record) -> Rejection | None:
        text = self._schema.prompt_text(record.value)
        return low_quality.too_short(text, self._policy.min_words) or low_quality.low_quality(text)

    def _check_personal_data(self, record: Record) -> Rejection | None:
        return self._first(record, self._personal_data.check)

    def _check_contamination(self, record: Record) -> Rejection | None:
        if self._evaluation_items is None:
            return None
        return self._evaluation_items.check(self._schema.texts_as_trained(record.value))

    def _first(self, record: Record, check: Callable[[str, str], Rejection | None]) -> Rejection | None:
        for field, text in self._schema.free_text(record.value):
            rejection = check(field, text)
            if rejection is not None:
                return rejection
        return None
