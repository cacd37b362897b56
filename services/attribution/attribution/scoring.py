"""Scores one answer: its gradient against an index, then shares, spans and reliability."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from attribution import baselines, reliability
from attribution.answer import Answer
from attribution.clusters import Scores
from attribution.gradients import Example
from attribution.index import AttributionIndex
from attribution.influence import Influence
from attribution.projection import FloatArray
from attribution.record import Scored, ShareLine, SpanLine
from attribution.shares import PPM, ShareParameters, Shares, attribute


class GradientSource(Protocol):
    """Computes gradients and log-likelihoods; `attribution.models.AdapterModels` in production."""

    def vocabulary(self, base_digest: str) -> int: ...

    def gradients(self, base_digest: str, adapter_digest: str, examples: Sequence[Example]) -> FloatArray: ...

    def log_likelihoods(
        self, base_digest: str, adapter_digest: str, example: Example
    ) -> tuple[float, float]: ...


@dataclass(frozen=True)
class ScoringParameters:
    """The parameters of scoring."""

    shares: ShareParameters = field(default_factory=ShareParameters)
    span_min_words: int = 4
    span_max_records: int = 10
    top_records: int = 3


def unattributable(answer: Answer, vocabulary: int | None) -> str:
    """Returns why this answer has no gradient, for people; "" if it has one. `vocabulary` None: a base model answered."""
    if not answer.model.adapter_digest:
        return "the base model answered; no contributed record was in its fine-tuning"
    if not answer.output_ids:
        withheld = "output_token_ids" in answer.left_out
        return (
            "policy excludes the answer's tokens from its event" if withheld else "the answer has no tokens"
        )
    if not answer.prompt_ids:
        return "policy excludes the prompt's tokens from the answer's event"
    if vocabulary is not None and max(answer.prompt_ids + answer.output_ids) >= vocabulary:
        return f"the answer has token ids that are not in the base model's vocabulary of {vocabulary} tokens"
    return ""


def score(
    answer: Answer,
    index_digest: str,
    index: AttributionIndex,
    *,
    models: GradientSource,
    parameters: ScoringParameters,
) -> Scored:
    """Returns the attribution of an answer by the model version that the index was built for."""
    model = answer.model
    if reason := unattributable(answer, models.vocabulary(model.base_digest)):
        return Scored(unattributed_ppm=PPM, unattributed_reason=reason)
    example = Example(answer.prompt_ids, answer.output_ids)
    query = models.gradients(model.base_digest, model.adapter_digest, [example])[0]
    found = index.influence(query)
    tuned, base = models.log_likelihoods(model.base_digest, model.adapter_digest, example)
    brought = brought_by_tuning(tuned, base)
    seed = seed_of(answer.inference, index_digest)
    table = index.table
    shares = attribute(
        table.trained_means(found.scores),
        table.owners,
        table.control_means(found.scores),
        contributors=len(table.contributors),
        parameters=parameters.shares,
        generator=np.random.default_rng(seed),
        brought=brought,
    )
    naive = baselines.naive_shares(table, found.scores)
    return Scored(
        unattributed_ppm=shares.unattributed_ppm,
        unattributed_reason=shares.reason,
        shares=_lines(answer, index, influence=found, shares=shares, naive=naive, parameters=parameters),
        spans=tuple(_spans(answer, index, parameters)),
        index_digest=index_digest,
        parameters={
            **parameters.shares.to_json(),
            "seed": seed,
            "index": index.manifest.parameters.to_json(),
        },
        threshold=shares.threshold,
        chance_excess=shares.chance_excess,
        mass=shares.mass,
        naive_control_ppm=naive.control_ppm,
        reliability=reliability.measure(
            table, found, replace(parameters.shares, resamples=1), np.random.default_rng(seed + 1)
        ),
        tuned_log_likelihood=tuned,
        base_log_likelihood=base,
        brought_ppm=round(brought * PPM),
    )


def brought_by_tuning(tuned: float, base: float) -> float:
    """Returns the part of an answer that is due to fine-tuning, in [0, 1]: 1 - p_base / p_tuned, from log-likelihoods in nats."""
    return max(0.0, -math.expm1(base - tuned)) if base < tuned else 0.0


def seed_of(inference: str, index_digest: str) -> int:
    """Returns the seed of one answer's randomness: scoring it again with the same index gives the same result."""
    return int.from_bytes(hashlib.sha256(f"{inference}\0{index_digest}".encode()).digest()[:6])


def _lines(
    answer: Answer,
    index: AttributionIndex,
    *,
    influence: Influence,
    shares: Shares,
    naive: baselines.NaiveShares,
    parameters: ScoringParameters,
) -> tuple[ShareLine, ...]:
    table = index.table
    lexical = baselines.lexical_shares(table, index.lexical.scores(answer.prompt_ids + answer.output_ids))
    clusters, records = table.cluster_counts(), table.record_counts()
    lines = [
        ShareLine(
            datanet="/".join(name.split("/")[:2]),
            contributor=name,
            ppm=shares.ppm[number],
            lower_ppm=round(shares.lower_ppm[number], 1),
            upper_ppm=round(shares.upper_ppm[number], 1),
            p_value=shares.p_values[number],
            naive_ppm=naive.ppm[number],
            lexical_ppm=lexical[number],
            cluster_count=int(clusters[number]),
            record_count=int(records[number]),
            payout_address=index.payout_addresses.get(name, ""),
            top_records=(
                _top_records(index, influence.scores, number, parameters.top_records)
                if shares.ppm[number]
                else ()
            ),
        )
        for number, name in enumerate(table.contributors)
    ]
    return tuple(sorted(lines, key=lambda line: (-line.ppm, line.contributor)))


def _top_records(index: AttributionIndex, scores: Scores, contributor: int, count: int) -> tuple[str, ...]:
    """Returns the contributor's own most influential records, of clusters credited to it, never copies of others' records."""
    table = index.table
    mine = table.trained_rows[
        (table.row_contributors == contributor) & (table.owners[table.trained_cluster_of_row] == contributor)
    ]
    best = mine[np.argsort(-scores[mine], kind="stable")][:count]
    return tuple(index.rows[row].record_digest for row in best)


def _spans(answer: Answer, index: AttributionIndex, parameters: ScoringParameters) -> list[SpanLine]:
    lines = []
    for text, in_prompt in ((answer.output, False), (answer.prompt, True)):
        for match in index.suffixes.matches(text, parameters.span_min_words, parameters.span_max_records):
            rows = [index.trained_rows[document] for document in match.documents]
            lines.append(
                SpanLine(
                    start=match.start,
                    end=match.end,
                    text=match.text,
                    in_prompt=in_prompt,
                    occurrence_count=match.occurrence_count,
                    record_digests=tuple(row.record_digest for row in rows),
                    contributors=tuple(sorted({row.contributor for row in rows})),
                )
            )
    return lines
