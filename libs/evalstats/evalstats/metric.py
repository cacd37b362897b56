"""What an item's value means. Needs nothing but the standard library, as policies do."""

from __future__ import annotations

from enum import StrEnum


class Metric(StrEnum):
    """What an item's value means, and which direction is better."""

    ACCURACY = "accuracy"
    """1 when the model's choice is the right one, else 0. Higher is better."""
    BITS_PER_BYTE = "bits_per_byte"
    """Bits the model needs per UTF-8 byte of the text. Lower is better."""

    @property
    def sign(self) -> int:
        """+1 where higher is better, -1 where lower is better: gain = sign * (tuned - base)."""
        return 1 if self is Metric.ACCURACY else -1

    @property
    def binary(self) -> bool:
        return self is Metric.ACCURACY
