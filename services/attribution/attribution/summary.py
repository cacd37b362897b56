"""Totals over answers, with intervals over answers.

A mean's interval is Student's t over answers as units: they are independent given the model. With fewer than two
answers nothing can be said of the spread, and the interval is all of [0, 1,000,000].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openledger.attribution.v1 import attribution_pb2 as pb
from openledger.common.v1.estimate_pb2 import Estimate
from scipy import stats
from sqlalchemy import Float, cast, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from attribution.shares import PPM
from attribution.store import AnswerRow, ShareRow

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Moments:
    """Of a quantity that some answers have and all others have as 0."""

    total: float
    squares: float

    def estimate(self, answers: int) -> Estimate:
        """Mean over `answers` with its interval, in ppm."""
        mean = self.total / answers if answers else 0.0
        lower, upper = 0.0, float(PPM)
        if answers >= 2:
            variance = max(0.0, self.squares - answers * mean * mean) / (answers - 1)
            half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, answers - 1)) * (variance / answers) ** 0.5
            lower, upper = max(0.0, mean - half), min(float(PPM), mean + half)
        return Estimate(
            value=mean,
            lower=lower,
            upper=upper,
            confidence=_CONFIDENCE,
            sample_size=answers,
            unit="ppm",
            method="mean over answers, Student's t",
        )


def summarize(session: Session, model_version: str) -> pb.AttributionSummary:
    """Of the scored answers of one model version, or of all for ""."""
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
        Moments(columns[place] or 0.0, columns[place + 1] or 0.0) for place in (0, 2, 4)
    )
    return pb.AttributionSummary(
        answer_count=count,
        pending_count=pending,
        contributors=_contributors(session, model_version, count),
        unattributed_ppm=unattributed.estimate(count),
        control_naive_ppm=naive.estimate(count),
        control_ppm=Moments(0.0, 0.0).estimate(count),  # not in the training manifest: no candidates
        control_check_ppm=check.estimate(count),
    )


def _contributors(
    session: Session, model_version: str, answers: int
) -> list[pb.AttributionSummary.ContributorTotal]:
    query = select(
        ShareRow.contributor,
        *_sums(ShareRow.ppm),
        *_sums(ShareRow.naive_ppm),
        *_sums(ShareRow.lexical_ppm),
        func.max(ShareRow.record_count),
        func.max(ShareRow.cluster_count),
    ).group_by(ShareRow.contributor)
    if model_version:
        query = query.join(AnswerRow, AnswerRow.id == ShareRow.answer).where(
            AnswerRow.model_version == model_version
        )
    totals = [
        pb.AttributionSummary.ContributorTotal(
            contributor=name,
            ppm=Moments(*row[0:2]).estimate(answers),
            naive_ppm=Moments(*row[2:4]).estimate(answers),
            lexical_ppm=Moments(*row[4:6]).estimate(answers),
            record_count=row[6],
            cluster_count=row[7],
        )
        for name, *row in session.execute(query).all()
    ]
    return sorted(totals, key=lambda total: (-total.ppm.value, total.contributor))


def _sums(column: InstrumentedAttribute[int]) -> tuple[Any, Any]:
    """Sum and sum of squares; as floats, because squares of ppm leave 64 bits at a few million answers."""
    value = cast(column, Float(53))
    return func.sum(value), func.sum(value * value)
