"""Converts rows, records and events to and from messages."""

from __future__ import annotations

import json
from typing import Any

from openledger.attribution.v1 import attribution_pb2 as pb
from openledger.common.v1 import list_pb2
from openledger.common.v1.estimate_pb2 import Estimate, Progress
from openledger.inference.v1 import inference_pb2

from attribution.answer import Answer, ServedModel
from attribution.store import AnswerRow, IndexRow
from attribution.summary import Mean, Summary


def to_answer(event: bytes) -> Answer:
    """Returns the answer of a stored InferenceCompleted event."""
    message = inference_pb2.InferenceCompleted.FromString(event)
    model = message.model
    return Answer(
        inference=message.inference,
        model=ServedModel(
            name=model.name,
            base_digest=model.base_digest,
            adapter_digest=model.adapter_digest,
            version_digest=model.version_digest,
            report_digest=model.report_digest,
        ),
        prompt_ids=tuple(message.prompt_token_ids),
        output_ids=tuple(message.output_token_ids),
        prompt=message.prompt,
        output=message.output,
        input_tokens=message.usage.input_tokens,
        output_tokens=message.usage.output_tokens,
        principal=message.principal,
        model_owner=message.model_owner,
        left_out=tuple(message.left_out),
    )


def is_full(view: list_pb2.View.ValueType) -> bool:
    """Returns whether a list shows everything of its items; BASIC is the default."""
    return view == list_pb2.VIEW_FULL


def attribution(row: AnswerRow, *, full: bool = True) -> pb.Attribution:
    """Returns an answer's attribution: complete if scored, the known part if pending.

    Unless `full`, without the record, the spans and the shares' records.
    """
    if row.pending:
        return _pending(row)
    record: Any = json.loads(row.record)
    made = pb.Attribution(
        name=f"attributions/{row.id}",
        inference=record["inference"],
        state=pb.ATTRIBUTION_STATE_SCORED,
        digest=row.digest,
        canonical_json=row.record if full else b"",
        model=inference_pb2.ServedModel(**record["model"]),
        index_digest=record["index_digest"],
        method=record["method"],
        shares=[_share(share, record, full=full) for share in record["shares"]],
        unattributed_ppm=record["unattributed_ppm"],
        unattributed_reason=record["unattributed_reason"],
        spans=[pb.Span(**span) for span in (record["spans"] if full else ())],
        reliability=_reliability(record["reliability"]),
        usage=inference_pb2.Usage(**record["usage"]),
        principal=record["principal"],
        model_owner=record["model_owner"],
    )
    made.score_time.FromJsonString(record["score_time"])
    return made


def index(row: IndexRow) -> pb.AttributionIndex:
    """Returns an index and the progress of its build."""
    return pb.AttributionIndex(
        model_version=row.model_version,
        digest=row.digest,
        progress=Progress(stage=row.stage, done=row.done, total=row.total, unit="record", eta_s=row.eta_s),
        record_count=row.record_count,
        control_count=row.control_count,
        ready=bool(row.digest),
        error=row.error,
    )


def summary(value: Summary) -> pb.AttributionSummary:
    """Returns the message."""
    return pb.AttributionSummary(
        answer_count=value.answer_count,
        pending_count=value.pending_count,
        contributors=[
            pb.AttributionSummary.ContributorTotal(
                contributor=each.contributor,
                ppm=_mean(each.ppm),
                naive_ppm=_mean(each.naive_ppm),
                lexical_ppm=_mean(each.lexical_ppm),
                record_count=each.record_count,
                cluster_count=each.cluster_count,
            )
            for each in value.contributors
        ],
        unattributed_ppm=_mean(value.unattributed_ppm),
        control_naive_ppm=_mean(value.control_naive_ppm),
        control_ppm=_mean(value.control_ppm),
        control_check_ppm=_mean(value.control_check_ppm),
    )


def _mean(value: Mean) -> Estimate:
    return Estimate(
        value=value.mean,
        lower=value.lower,
        upper=value.upper,
        confidence=value.confidence,
        sample_size=value.answer_count,
        unit="ppm",
        method="mean over answers, Student's t",
    )


def _pending(row: AnswerRow) -> pb.Attribution:
    answer = inference_pb2.InferenceCompleted.FromString(row.event)
    return pb.Attribution(
        name=f"attributions/{row.id}",
        inference=answer.inference,
        state=pb.ATTRIBUTION_STATE_PENDING,
        model=answer.model,
        usage=answer.usage,
        principal=answer.principal,
        model_owner=answer.model_owner,
    )


def _share(share: dict[str, Any], record: dict[str, Any], *, full: bool) -> pb.Share:
    parameters = record["parameters"]
    return pb.Share(
        datanet=share["datanet"],
        contributor=share["contributor"],
        ppm=share["ppm"],
        estimate=Estimate(
            value=share["ppm"],
            lower=share["lower_ppm"],
            upper=share["upper_ppm"],
            confidence=parameters["confidence"],
            sample_size=record["reliability"]["cluster_count"],
            unit="ppm",
            method=f"percentile bootstrap over clusters, {parameters['resamples']} resamples, "
            f"seed {parameters['seed']}",
        ),
        naive_ppm=share["naive_ppm"],
        lexical_ppm=share["lexical_ppm"],
        payout_address=share["payout_address"],
        p_value=share["p_value"],
        top_records=share["top_records"] if full else (),
    )


def _reliability(reliability: dict[str, Any] | None) -> pb.Reliability | None:
    if reliability is None:
        return None
    return pb.Reliability(
        split_half_agreement=reliability["contributor_agreement"],
        control_count=reliability["control_count"],
        null_exceedance=reliability["null_exceedance"],
        cluster_count=reliability["cluster_count"],
        note=f"agreement of clusters between halves {reliability['cluster_agreement']:.2f}; {reliability['note']}",
    )
