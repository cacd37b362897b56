"""Computes totals over answers, with confidence intervals.

A mean's interval is Student's t with answers as units: they are independent given the model. With fewer than two answers
the spread is unknown, and the interval is all of [0, 1,000,000].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scipy import stats
from sqlalchemy import Float, cast, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from attribution.shares import PPM
from attribution.store import AnswerRow, ShareRow

_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over answers with its confidence interval, in ppm."""

    mean: float
    lower: float
    upper: float
    confidence: float
    answer_count: int


@dataclass(frozen=True, kw_only=True)
class ContributorTotal:
    """One contributor's mean shares."""

    contributor: str
    """`datanets/{datanet}/contributors/{contributor}`."""
    ppm: Mean
    naive_ppm: Mean
    lexical_ppm: Mean
    record_count: int
    cluster_count: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Totals over scored answers."""

    answer_count: int
    pending_count: int
    contributors: tuple[ContributorTotal, ...]
    """Largest mean share first."""
    unattributed_ppm: Mean
    control_naive_ppm: Mean
    control_ppm: Mean
    control_check_ppm: Mean


@dataclass(frozen=True)
class Moments:
    """Sums of a quantity over the answers that have it; it is 0 for all other answers."""

    total: float
    squares: float

    def mean(self, answers: int) -> Mean:
        """Returns the mean over `answers` answers with its interval, in ppm."""
        mean = self.total / answers if answers else 0.0
        lower, upper = 0.0, float(PPM)
        if answers >= 2:
            variance = max(0.0, self.squares - answers * mean * mean) / (answers - 1)
            half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, answers - 1)) * (variance / answers) ** 0.5
            lower, upper = max(0.0, mean - half), min(float(PPM), mean + half)
        return Mean(mean=mean, lower=lower, upper=upper, confidence=_CONFIDENCE, answer_count=answers)


def summarize(session: Session, model_version: str) -> Summary:
    """Returns the totals of one model version's scored answers, or of all if it is ""."""
    chosen = [AnswerRow.model_version == model_version] if model_version else []
    pending = session.scalar(select(func.count()).where(AnswerRow.pending, *chosen)) or 0
    count, *columns = session.execute(
        select(
            func.count(),
            *_sums(AnswerRow.unattributed_ppm),
            *_sums(AnswerRow.naive_control_ppm),
            *_sums(AnswerRow.control_check_ppm),
        ).where(~AnswerRow.pending, *chosen)
    ).one()
    unattributed, naive, check = (
        Moments(columns[first] or 0.0, columns[first + 1] or 0.0) for first in (0, 2, 4)
    )
    return Summary(
        answer_count=count,
        pending_count=pending,
        contributors=_contributors(session, model_version, count),
        unattributed_ppm=unattributed.mean(count),
        control_naive_ppm=naive.mean(count),
        control_ppm=Moments(0.0, 0.0).mean(count),  # not in the training manifest, so never a candidate
        control_check_ppm=check.mean(count),
    )


def _contributors(session: Session, model_version: str, answers: int) -> tuple[ContributorTotal, ...]:
    sums = [*_sums(ShareRow.ppm), *_sums(ShareRow.naive_ppm), *_sums(ShareRow.lexical_ppm)]
    counts = [func.max(ShareRow.record_count), func.max(ShareRow.cluster_count)]
    query = select(ShareRow.contributor, *sums, *counts).group_by(ShareRow.contributor)
    if model_version:
        query = query.join(AnswerRow, AnswerRow.id == ShareRow.answer).where(
            AnswerRow.model_version == model_version
        )
    totals = [
        ContributorTotal(
            contributor=name,
            ppm=Moments(*row[0:2]).mean(answers),
            naive_ppm=Moments(*row[2:4]).mean(answers),
            lexical_ppm=Moments(*row[4:6]).mean(answers),
            record_count=row[6],
            cluster_count=row[7],
        )
        for name, *row in session.execute(query).all()
    ]
    return tuple(sorted(totals, key=lambda total: (-total.ppm.mean, total.contributor)))


def _sums(column: InstrumentedAttribute[int]) -> tuple[Any, Any]:
    """Returns sum and sum of squares; as floats, because squares of ppm exceed 64 bits at a few million answers."""
    value = cast(column, Float(53))
    return func.sum(value), func.sum(value * value)
