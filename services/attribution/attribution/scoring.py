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
    """Where gradients come from; attribution.models.AdapterModels is the one in production."""

    def vocabulary(self, base_digest: str) -> int: ...

    def gradients(self, base_digest: str, adapter_digest: str, examples: Sequence[Example]) -> FloatArray: ...

    def log_likelihoods(
        self, base_digest: str, adapter_digest: str, example: Example
    ) -> tuple[float, float]: ...


@dataclass(frozen=True)
class ScoringParameters:
    """What is recorded of how an answer was scored."""

    shares: ShareParameters = field(default_factory=ShareParameters)
    span_min_words: int = 4
    span_max_records: int = 10
    top_records: int = 3


def unattributable(answer: Answer, vocabulary: int | None) -> str:
    """Why no gradient of this answer can be taken, for people; "" when it can. `vocabulary` None: a base model."""
    if not answer.model.adapter_digest:
        return "the base model answered; no contributed record was in its fine-tuning"
    if not answer.output_ids:
        withheld = "output_token_ids" in answer.left_out
        return "policy left the answer's tokens out of its event" if withheld else "the answer has no tokens"
    if not answer.prompt_ids:
        return "policy left the prompt's tokens out of the answer's event"
    if vocabulary is not None and max(answer.prompt_ids + answer.output_ids) >= vocabulary:
        return f"the answer has token ids that the base model, with {vocabulary} tokens, does not know"
    return ""


def score(
    answer: Answer,
    index_digest: str,
    index: AttributionIndex,
    models: GradientSource,
    parameters: ScoringParameters,
) -> Scored:
    """Of an answer by the model version that the index was built for."""
    model = answer.model
    if reason := unattributable(answer, models.vocabulary(model.base_digest)):
        return Scored(PPM, reason)
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
        len(table.contributors),
        parameters.shares,
        np.random.default_rng(seed),
        brought,
    )
    naive = baselines.naive_shares(table, found.scores)
    return Scored(
        shares.unattributed_ppm,
        shares.reason,
        _lines(answer, index, found, shares, naive, parameters),
        tuple(_spans(answer, index, parameters)),
        index_digest,
        {**parameters.shares.to_json(), "seed": seed, "index": index.manifest.parameters.to_json()},
        shares.threshold,
        shares.chance_excess,
        shares.mass,
        naive.control_ppm,
        reliability.measure(
            table, found, replace(parameters.shares, resamples=1), np.random.default_rng(seed + 1)
        ),
        tuned,
        base,
        round(brought * PPM),
    )


def brought_by_tuning(tuned: float, base: float) -> float:
    """Part of an answer that fine-tuning brought, in [0, 1]: 1 - p_base / p_tuned, from log-likelihoods in nats."""
    return max(0.0, -math.expm1(base - tuned)) if base < tuned else 0.0


def seed_of(inference: str, index_digest: str) -> int:
    """Of everything random about one answer: whoever scores it again with the same index gets the same."""
    return int.from_bytes(hashlib.sha256(f"{inference}\0{index_digest}".encode()).digest()[:6])


def _lines(
    answer: Answer,
    index: AttributionIndex,
    found: Influence,
    shares: Shares,
    naive: baselines.NaiveShares,
    parameters: ScoringParameters,
) -> tuple[ShareLine, ...]:
    table = index.table
    lexical = baselines.lexical_shares(table, index.lexical.scores(answer.prompt_ids + answer.output_ids))
    clusters, records = table.cluster_counts(), table.record_counts()
    lines = [
        ShareLine(
            "/".join(name.split("/")[:2]),
            name,
            shares.ppm[place],
            round(shares.lower_ppm[place], 1),
            round(shares.upper_ppm[place], 1),
            shares.p_values[place],
            naive.ppm[place],
            lexical[place],
            int(clusters[place]),
            int(records[place]),
            index.payout_addresses.get(name, ""),
            _top_records(index, found.scores, place, parameters.top_records) if shares.ppm[place] else (),
        )
        for place, name in enumerate(table.contributors)
    ]
    return tuple(sorted(lines, key=lambda line: (-line.ppm, line.contributor)))


def _top_records(index: AttributionIndex, scores: Scores, contributor: int, count: int) -> tuple[str, ...]:
    """The contributor's own records with the largest influence: the cluster's earliest, never a copy of it."""
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
                    match.start,
                    match.end,
                    match.text,
                    in_prompt,
                    match.occurrence_count,
                    tuple(row.record_digest for row in rows),
                    tuple(sorted({row.contributor for row in rows})),
                )
            )
    return lines
