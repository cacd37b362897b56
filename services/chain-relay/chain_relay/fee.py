"""What an answer costs: integer arithmetic in base units (10^-18 OPEN), no floats anywhere."""

from __future__ import annotations

from dataclasses import dataclass

TOKENS_PER_RATE = 1000


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What tokens cost. All values in base units."""

    rate_in: int
    """Per 1,000 input tokens."""
    rate_out: int
    """Per 1,000 output tokens."""
    platform_fee: int
    """Per answer, whatever its length."""


def fee_of(rates: Rates, input_tokens: int, output_tokens: int) -> int:
    """The fee of one answer in base units.

    Each of the two token terms is rounded down on its own, so that a bill can be checked line by line; the customer
    pays at most 2 base units less than the exact sum, never more.
    """
    if input_tokens < 0 or output_tokens < 0:
        raise ValueError(f"token counts cannot be negative: {input_tokens} in, {output_tokens} out")
    return (
        input_tokens * rates.rate_in // TOKENS_PER_RATE
        + output_tokens * rates.rate_out // TOKENS_PER_RATE
        + rates.platform_fee
    )
