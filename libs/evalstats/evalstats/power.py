"""How many items an unharmed model needs to pass the sequential test."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from evalstats.bets import Design, designs, gain_bound
from evalstats.betting import Capital
from evalstats.paired import Floats, Ints, PairedValues
from evalstats.policy import SuitePolicy
from evalstats.sequential import independent

POWER = 0.8
"""Stated with every recommended number of items."""
MOST_ITEMS = 8_192
"""More than this is not simulated: the recommendation is then "more"."""
_SEQUENCES = 1_000
_BLOCK = 64
_FEWEST = 10
"""Clusters below which real-valued gains do not tell their spread."""

Draw = Callable[[np.random.RandomState, Ints, int], Floats]


def items_to_pass(pairs: PairedValues, suite: SuitePolicy, alpha: float, seed: int) -> int | None:
    """Returns after how many independent items a model without any loss passes a retained suite with 80% probability.

    Simulated with the test itself, 1,000 sequences, so that the stated power holds to about 1.3 points (one standard
    error) also where few items differ. Accuracy: the share of items that differ is drawn from its posterior (Jeffreys)
    given `pairs`, half of them better and half worse. Bits per byte: the gains of `pairs`, moved to mean zero, are
    drawn again. None for more than MOST_ITEMS, and where there are too few clusters to tell.
    """
    gains, bound = pairs.gains[independent(pairs)], gain_bound(pairs.metric, suite.margin)
    random = np.random.RandomState(seed)
    if pairs.metric.binary:
        changed = np.count_nonzero(gains)
        shares = random.beta(changed + 0.5, len(gains) - changed + 0.5, size=_SEQUENCES)
        draw, square = choices(shares), float(shares.mean())
    elif len(gains) < _FEWEST:
        return None
    else:
        centred = np.clip(gains - gains.mean(), -bound, bound) / bound
        draw, square = _resampled(centred), float(np.mean(centred**2))
    return _items(draw, square, designs(suite, bound)[0], alpha, random)


def items_for_discordance(share: float, suite: SuitePolicy, alpha: float, seed: int) -> int | None:
    """Returns the same for accuracy where the share of items that differ is known."""
    draw = choices(np.full(_SEQUENCES, share))
    return _items(draw, share, designs(suite, 1.0)[0], alpha, np.random.RandomState(seed))


def _items(
    draw: Draw, square: float, design: Design, alpha: float, random: np.random.RandomState
) -> int | None:
    """Returns the number of items after which 80% of the drawn sequences have reached 1 / alpha.

    `square`: mean square of an observation. The best bet grows by null^2 / (2 square) an item, on average; where even
    that is too slow nothing is drawn.
    """
    threshold = math.log(1 / alpha)
    if threshold * 2 * square > MOST_ITEMS * design.null**2:
        return None
    wanted = math.ceil(POWER * _SEQUENCES)
    items = first_reached(
        draw, design, threshold, random=random, sequences=_SEQUENCES, most=MOST_ITEMS, enough=wanted
    )
    found = int(np.sort(items)[wanted - 1])
    return found if found <= MOST_ITEMS else None


def first_reached(
    draw: Draw,
    design: Design,
    threshold: float,
    *,
    random: np.random.RandomState,
    sequences: int,
    most: int,
    enough: int | None = None,
) -> Ints:
    """Returns after how many items each drawn sequence reaches the threshold, int64 [sequences]; most + 1 for never.

    Stops drawing when `enough` sequences have reached it (None: all).
    """
    items = np.full(sequences, most + 1, dtype=np.int64)
    capital, running = Capital(design, sequences), np.arange(sequences, dtype=np.int64)
    for done in range(0, most, _BLOCK):
        block = min(_BLOCK, most - done)
        reached = capital.extend(draw(random, running, block)) >= threshold
        ended = np.asarray(reached.any(axis=1))
        items[running[ended]] = done + 1 + reached[ended].argmax(axis=1)
        capital.keep(~ended)
        running = running[~ended]
        if sequences - len(running) >= (enough or sequences):
            break
    return items


def choices(shares: Floats, gain: float = 0.0) -> Draw:
    """Draws gains of accuracy with a mean of `gain`: sequence s differs in a share shares[s] of its items."""

    def draw(random: np.random.RandomState, sequences: Ints, items: int) -> Floats:
        uniform, share = random.random_sample((len(sequences), items)), shares[sequences][:, None]
        better = (share + gain) / 2
        return (uniform < better).astype(np.float64) - ((uniform >= better) & (uniform < share))

    return draw


def _resampled(values: Floats) -> Draw:
    def draw(random: np.random.RandomState, sequences: Ints, items: int) -> Floats:
        return values[random.randint(0, len(values), size=(len(sequences), items))]

    return draw
