"""Rows and records as the API and the events tell them."""

from __future__ import annotations

import json
from typing import Any

from openledger.attribution.v1 import attribution_pb2 as pb
from openledger.common.v1.estimate_pb2 import Estimate, Progress
from openledger.inference.v1 import inference_pb2

from attribution.store import AnswerRow, IndexRow


def attribution(row: AnswerRow) -> pb.Attribution:
    """An answer's attribution: all of it when scored, what is known when pending."""
    if row.pending:
        return _pending(row)
    record: Any = json.loads(row.record)
    made = pb.Attribution(
        name=f"attributions/{row.id}",
        inference=record["inference"],
        state=pb.ATTRIBUTION_STATE_SCORED,
        digest=row.digest,
        canonical_json=row.record,
        model=inference_pb2.ServedModel(**record["model"]),
        index_digest=record["index_digest"],
        method=record["method"],
        shares=[_share(share, record) for share in record["shares"]],
        unattributed_ppm=record["unattributed_ppm"],
        unattributed_reason=record["unattributed_reason"],
        spans=[pb.Span(**span) for span in record["spans"]],
        reliability=_reliability(record["reliability"]),
        usage=inference_pb2.Usage(**record["usage"]),
        principal=record["principal"],
        model_owner=record["model_owner"],
    )
    made.score_time.FromJsonString(record["score_time"])
    return made


def index(row: IndexRow) -> pb.AttributionIndex:
    """An index and how far it is built."""
    return pb.AttributionIndex(
        model_version=row.model_version,
        digest=row.digest,
        progress=Progress(stage=row.stage, done=row.done, total=row.total, unit="record", eta_s=row.eta_s),
        record_count=row.record_count,
        control_count=row.control_count,
        ready=bool(row.digest),
        error=row.error,
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


def _share(share: dict[str, Any], record: dict[str, Any]) -> pb.Share:
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
        top_records=share["top_records"],
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
