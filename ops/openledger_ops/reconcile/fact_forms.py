"""The forms of the texts in facts. A fact of another form is one finding, where it would end the whole reconciliation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_AMOUNT, _DIGEST, _ADDRESS = "an amount", "a digest", "an address"
_OPTIONAL_DIGEST, _NUMBERED, _TIME = "a digest or nothing", "a name that ends in a number", "a time"
_FORMS = {
    _AMOUNT: re.compile(r"\d{1,78}"),  # 2**256 has 78 digits
    _DIGEST: re.compile(r"sha256:[0-9a-f]{64}"),
    _OPTIONAL_DIGEST: re.compile(r"(sha256:[0-9a-f]{64})?"),
    _ADDRESS: re.compile(r"0x[0-9a-fA-F]{40}"),
    _NUMBERED: re.compile(r".+/\d{1,18}"),
}
_FIELDS: Mapping[str, Mapping[str, str]] = {
    "known_snapshot": {"name": _NUMBERED},
    "sealed_snapshot": {"name": _NUMBERED, "seal_time": _TIME},
    "ledger": {"address": _ADDRESS},
    "settled_answer": {
        "model_digest": _DIGEST,
        "report_digest": _OPTIONAL_DIGEST,
        "record_digest": _DIGEST,
        "fee": _AMOUNT,
        "dust": _AMOUNT,
    },
    "batch": {"fee_total": _AMOUNT, "payout_total": _AMOUNT, "dust": _AMOUNT},
    "earning": {"amount": _AMOUNT},
    "registered_snapshot": {"root": _DIGEST},
    "registered_model_version": {"version_digest": _DIGEST, "report_digest": _OPTIONAL_DIGEST},
    "reward_root": {"total": _AMOUNT},
    "reward_account": {"address": _ADDRESS, "cumulative": _AMOUNT},
}
"""By kind of fact, the fields that reconciliation converts."""


def problem(kind: str, fact: Any) -> str:
    """Returns why a fact cannot be read; "" for one that can."""
    for field, form in _FIELDS.get(kind, {}).items():
        value = getattr(fact, field)
        if form == _TIME:
            try:
                value.ToDatetime()
            except (ValueError, OverflowError) as error:
                return f"{field}: {error}"
        elif _FORMS[form].fullmatch(value) is None:
            return f"{field} is {value[:80]!r}, which is not {form}"
    if kind == "settled_answer":
        for part in fact.parts:
            if _FORMS[_AMOUNT].fullmatch(part.amount) is None:
                return f"the amount of {part.kind} {part.beneficiary} is {part.amount[:80]!r}"
    return ""
