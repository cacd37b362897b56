"""Who gets which part of a fee. fee = sum of payouts + dust, exactly, always.

    platform, model owner, stakers   floor(fee * bps / 10,000) each
    contributors                     floor(fee * bps / 10,000), then divided by attribution shares
    dust                             what the four floors leave: at most 3 base units

The contributors' part is divided without remainder over shares and the unattributed rest, by largest remainder
(Hamilton): each gets the floor of its exact part, and the units left over go to the largest fractions, the
earlier name first where fractions are equal. The unattributed part goes in equal parts to the Datanets that the
answer's event names a treasury address for, and to the platform when it names none. It never goes to the
contributors that were attributed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PPM = 1_000_000
BPS = 10_000

PLATFORM = "platform"
MODEL_OWNER = "model_owner"
STAKERS = "stakers"
CONTRIBUTOR = "contributor"
TREASURY = "treasury"


@dataclass(frozen=True, kw_only=True)
class SplitBps:
    """The parts in basis points; they add up to 10,000."""

    platform: int
    model_owner: int
    stakers: int
    contributors: int

    def __post_init__(self) -> None:
        parts = (self.platform, self.model_owner, self.stakers, self.contributors)
        if min(parts) < 0 or sum(parts) != BPS:
            raise ValueError(f"a split must be four non-negative parts of {BPS} in all, got {parts}")


@dataclass(frozen=True)
class ShareOf:
    """A contributor's attribution share, in ppm."""

    contributor: str
    ppm: int
    address: str


@dataclass(frozen=True)
class Answer:
    """What the split needs to know of one attributed answer. Shares and `unattributed_ppm` add up to 1,000,000."""

    model_owner: str
    """"" when a base model answered: it has no owner here, and the owner's part goes to the platform."""
    shares: Sequence[ShareOf]
    unattributed_ppm: int
    treasuries: Mapping[str, str]
    """Treasury address by Datanet. Attribution names only Datanets that have one; a payout to "" would be held."""


@dataclass(frozen=True, kw_only=True)
class Payout:
    """One part of a fee."""

    kind: str
    beneficiary: str
    address: str
    """"" when none is known yet: the amount is held under the beneficiary's name."""
    amount: int


@dataclass(frozen=True)
class Accounts:
    """Addresses that no event carries: the platform's own, the stakers', the model owners' by principal."""

    platform: str
    stakers: str
    owners: Mapping[str, str]


def split_fee(fee: int, bps: SplitBps, answer: Answer, accounts: Accounts) -> tuple[list[Payout], int]:
    """The payouts of a fee (those of nothing are left out) and the dust, in base units."""
    owner_part = fee * bps.model_owner // BPS
    platform_part = fee * bps.platform // BPS
    payouts = [
        Payout(kind=STAKERS, beneficiary=STAKERS, address=accounts.stakers, amount=fee * bps.stakers // BPS)
    ]
    if answer.model_owner:
        address = accounts.owners.get(answer.model_owner, "")
        payouts.append(
            Payout(kind=MODEL_OWNER, beneficiary=answer.model_owner, address=address, amount=owner_part)
        )
    else:
        platform_part += owner_part
    payouts.append(
        Payout(kind=PLATFORM, beneficiary=PLATFORM, address=accounts.platform, amount=platform_part)
    )
    payouts += _contributors(fee * bps.contributors // BPS, answer, accounts)
    dust = fee - sum(payout.amount for payout in payouts)
    return [payout for payout in payouts if payout.amount], dust


def largest_remainder(amount: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Divides an amount by integer weights without remainder; equal fractions are served in order of name."""
    total = sum(weights.values())
    if total <= 0 or min(weights.values()) < 0:
        raise ValueError("weights must be non-negative and not all zero")
    parts = {name: amount * weight // total for name, weight in weights.items()}
    left = amount - sum(parts.values())
    by_fraction = sorted(weights, key=lambda name: (-(amount * weights[name] % total), name))
    for name in by_fraction[:left]:
        parts[name] += 1
    return parts


def _contributors(amount: int, answer: Answer, accounts: Accounts) -> list[Payout]:
    weights = {f"{CONTRIBUTOR}/{share.contributor}": share.ppm for share in answer.shares}
    if len(weights) != len(answer.shares):
        raise ValueError("a contributor has more than one share")
    weights[TREASURY] = answer.unattributed_ppm
    if sum(weights.values()) != PPM:
        raise ValueError(f"shares and unattributed add up to {sum(weights.values())} ppm, not {PPM}")
    parts = largest_remainder(amount, weights)
    payouts = [
        Payout(
            kind=CONTRIBUTOR,
            beneficiary=share.contributor,
            address=share.address,
            amount=parts[f"{CONTRIBUTOR}/{share.contributor}"],
        )
        for share in answer.shares
    ]
    if not answer.treasuries:
        # A base model answered, nothing could be attributed, or no Datanet has an address: the part is the platform's.
        return [
            *payouts,
            Payout(kind=TREASURY, beneficiary=PLATFORM, address=accounts.platform, amount=parts[TREASURY]),
        ]
    by_datanet = largest_remainder(parts[TREASURY], dict.fromkeys(answer.treasuries, 1))
    treasuries = (
        Payout(kind=TREASURY, beneficiary=name, address=answer.treasuries[name], amount=part)
        for name, part in by_datanet.items()
    )
    return [*payouts, *treasuries]
