"""Who contributes what in the demo. The same arguments give the same bytes on any machine."""

from __future__ import annotations

from threat_intel.attack import TACTICS
from threat_intel.bad_contributors import careless_records, copier_records
from threat_intel.vendors import VENDORS, drawn

__all__ = ["TACTICS", "careless_records", "contributors", "copier_records", "records_for"]


def contributors() -> list[tuple[str, str]]:
    """(id, name for people) of the eight vendors; the copier and the careless one are not among them."""
    return [(vendor.id, vendor.title) for vendor in VENDORS]


def records_for(contributor: str, n: int, seed: int = 0) -> list[bytes]:
    """`n` records of a vendor, as JSON {text, tactic, source}; a smaller `n` gives a beginning of a larger one.

    Tactics take turns while they last. Raises KeyError for an unknown vendor, ValueError when it has fewer.
    """
    return [procedure.encode() for procedure in drawn(contributor, n, seed)]
