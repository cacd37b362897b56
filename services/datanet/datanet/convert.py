"""Converts between the domain and the API's messages."""

from __future__ import annotations

from google.rpc import status_pb2
from openledger.common.v1 import list_pb2
from openledger.common.v1.estimate_pb2 import Progress
from openledger.common.v1.object_pb2 import ObjectChunk
from openledger.datanet.v1 import datanet_pb2 as pb

from datanet import definition, entities
from datanet.damage import is_damaged
from datanet.decision import Result
from datanet.definition import (
    DEFAULT_ENTITIES,
    DEFAULT_MAX_LENGTH,
    MAX_RECORD_BYTES,
    Field,
    QualityPolicy,
    RecordSchema,
)
from datanet.download import Chunk
from datanet.entities import Submission
from datanet.quality import EXACT_DUPLICATE
from datanet.seal_operation import SealOperation
from datanet.snapshot import SplitRule
from identity.names import ContributorName, DatanetName, SnapshotName
from servicekit.database import utc_now
from servicekit.errors import AlreadyExists, InvalidArgument, to_status
from servicekit.names import parse
from servicekit.timestamps import to_proto


def is_full(view: list_pb2.View.ValueType) -> bool:
    """Returns whether a list shows everything of its items; BASIC is the default."""
    return view == list_pb2.VIEW_FULL


def to_datanet(name: str, message: pb.Datanet) -> definition.Datanet:
    """Returns the Datanet that a request describes; zero values become their defaults."""
    return definition.Datanet(
        name=name,
        owner="",
        licence=message.licence,
        schema=RecordSchema(
            tuple(
                Field(
                    name=each.name,
                    required=each.required,
                    max_length=each.max_length or DEFAULT_MAX_LENGTH,
                    allowed_values=tuple(each.allowed_values),
                    description=each.description,
                )
                for each in message.schema.fields
            ),
            message.schema.prompt_template,
            message.schema.completion_template,
        ),
        policy=_to_policy(message.policy),
        display_name=message.display_name,
        description=message.description,
        treasury_address=message.treasury_address,
    )


def _to_policy(message: pb.QualityPolicy) -> QualityPolicy:
    defaults = QualityPolicy()
    return QualityPolicy(
        min_words=message.min_words or defaults.min_words,
        personal_data_entities=tuple(message.personal_data_entities) or DEFAULT_ENTITIES,
        max_records_per_contributor=message.max_records_per_contributor,
        near_duplicate_threshold=message.near_duplicate_threshold or defaults.near_duplicate_threshold,
        gate_items_digest=message.gate_items_digest,
        contamination_check=message.contamination_check != pb.CONTAMINATION_CHECK_OFF,
        manual_review=message.review_mode == pb.REVIEW_MODE_MANUAL,
    )


def datanet(value: definition.Datanet, *, full: bool = True) -> pb.Datanet:
    """Returns the message with explicit defaults; unless `full`, without templates and allowed values."""
    policy = value.policy
    return pb.Datanet(
        name=value.name,
        display_name=value.display_name,
        description=value.description,
        licence=value.licence,
        owner=value.owner,
        schema=pb.RecordSchema(
            fields=[
                pb.RecordSchema.Field(
                    name=each.name,
                    required=each.required,
                    max_length=each.max_length,
                    allowed_values=each.allowed_values if full else (),
                    description=each.description,
                )
                for each in value.schema.fields
            ],
            prompt_template=value.schema.prompt_template if full else "",
            completion_template=value.schema.completion_template if full else "",
        ),
        policy=pb.QualityPolicy(
            min_words=policy.min_words,
            personal_data_entities=policy.personal_data_entities,
            max_records_per_contributor=policy.max_records_per_contributor,
            near_duplicate_threshold=policy.near_duplicate_threshold,
            gate_items_digest=policy.gate_items_digest,
            contamination_check=(
                pb.CONTAMINATION_CHECK_ON if policy.contamination_check else pb.CONTAMINATION_CHECK_OFF
            ),
            review_mode=pb.REVIEW_MODE_MANUAL if policy.manual_review else pb.REVIEW_MODE_AUTOMATIC,
        ),
        treasury_address=value.treasury_address,
        create_time=to_proto(value.create_time),
    )


def to_contributor(name: str, message: pb.Contributor) -> entities.Contributor:
    """Returns the contributor that a request describes."""
    return entities.Contributor(
        name=name,
        principal=message.principal,
        display_name=message.display_name,
        payout_address=message.payout_address,
        consent_licence=message.consent_licence,
        consent_time=utc_now(),
    )


def contributor(value: entities.Contributor) -> pb.Contributor:
    """Returns the message."""
    return pb.Contributor(
        name=value.name,
        principal=value.principal,
        display_name=value.display_name,
        payout_address=value.payout_address,
        consent_licence=value.consent_licence,
        consent_time=to_proto(value.consent_time),
        accepted_count=value.accepted_count,
        pending_count=value.pending_count,
        rejected_count=value.rejected_count,
    )


def record(value: entities.StoredRecord) -> pb.Record:
    """Returns the message."""
    return pb.Record(
        name=value.name,
        digest=value.digest,
        contributor=value.contributor,
        state=pb.RecordState.ValueType(value.state),
        rule=value.rule,
        reason=value.reason,
        content=value.content,
        create_time=to_proto(value.create_time),
        damaged=is_damaged(value.digest, value.content),
    )


def is_about_contributor(subject: pb.DecisionSubject.ValueType) -> bool | None:
    """Returns whether a decision is about the contributor, not about the text; None when the request does not say."""
    if subject == pb.DECISION_SUBJECT_UNSPECIFIED:
        return None
    return subject == pb.DECISION_SUBJECT_CONTRIBUTOR


def to_submission(message: pb.ContributeRequest) -> Submission:
    """Returns the record of a stream's message. Cuts content that is too large: a queue must not hold 16 times its limit."""
    return Submission(message.contributor, message.sequence, message.content[: MAX_RECORD_BYTES + 1])


def chunk(digest: str, value: Chunk) -> ObjectChunk:
    """Returns the message."""
    return ObjectChunk(digest=digest, size=value.size, offset=value.offset, data=value.data)


def result(sequence: int, value: Result) -> pb.ContributeResponse:
    """Returns the response to one record of a stream."""
    return pb.ContributeResponse(
        sequence=sequence,
        digest=value.digest,
        state=pb.RecordState.ValueType(value.state),
        already_present=value.already_present,
        rule=value.rule,
        status=_status(value),
    )


def _status(value: Result) -> status_pb2.Status | None:
    if not value.rule:
        return None
    if value.rule == EXACT_DUPLICATE:
        return to_status(AlreadyExists("record", value.name))
    return to_status(InvalidArgument(value.field, value.rule, value.reason))


def snapshot(value: entities.Snapshot, *, full: bool = True) -> pb.Snapshot:
    """Returns the message; unless `full`, without the counts by contributor."""
    return pb.Snapshot(
        name=value.name,
        root=value.root,
        manifest_digest=value.manifest_digest,
        records_digest=value.records_digest,
        record_count=value.record_count,
        cluster_count=value.cluster_count,
        near_duplicate_cluster_count=value.near_duplicate_cluster_count,
        splits=[
            pb.Snapshot.SplitCount(split=each.name, record_count=each.records, cluster_count=each.clusters)
            for each in value.splits
        ],
        contributors=[
            pb.Snapshot.ContributorCount(
                contributor=each.name, record_count=each.records, original_cluster_count=each.clusters
            )
            for each in (value.contributors if full else ())
        ],
        contributor_count=value.contributor_count,
        rejected=[pb.Snapshot.RuleCount(rule=rule, record_count=records) for rule, records in value.rejected],
        seal_time=to_proto(value.seal_time),
        read_time=to_proto(value.read_time) if value.read_time else None,
    )


def to_contributor_filter(parent: DatanetName, contributor: str) -> ContributorName | None:
    """Returns the contributor to list records of. Raises InvalidArgument for a contributor to another Datanet."""
    if not contributor:
        return None
    name = parse("contributor", ContributorName, contributor)
    if name.datanet != parent.datanet:
        raise InvalidArgument("contributor", "parent", f"must be a contributor to {parent}", contributor)
    return name


_UNITS = {"copy": "record", "sketch": "record", "cluster": "band", "write": "record"}


def seal_operation(value: SealOperation) -> pb.SealOperation:
    """Returns the message."""
    at = value.position
    return pb.SealOperation(
        name=str(value.name),
        state=pb.SealOperationState.ValueType(value.state),
        progress=(
            Progress(stage=at.stage, done=at.done, total=at.total, unit=_UNITS[at.stage], eta_s=at.eta_s)
            if at.stage
            else None
        ),
        queue_position=value.queue_position,
        error=status_pb2.Status.FromString(value.error) if value.error else None,
        snapshot=str(SnapshotName(value.name.datanet, value.snapshot)) if value.snapshot else "",
        held_out_fraction=value.rule.held_out_fraction,
        control_fraction=value.rule.control_fraction,
        split_salt=value.rule.salt,
        principal=value.principal,
        attempt_count=value.attempts,
        create_time=to_proto(value.create_time),
        start_time=to_proto(value.start_time) if value.start_time else None,
        end_time=to_proto(value.end_time) if value.end_time else None,
    )


def to_split_rule(parent: DatanetName, request: pb.SealSnapshotRequest) -> SplitRule:
    """Returns the split rule of a request; zero values become the defaults."""
    defaults = SplitRule(str(parent))
    return SplitRule(
        request.split_salt or defaults.salt,
        request.held_out_fraction or defaults.held_out_fraction,
        request.control_fraction or defaults.control_fraction,
    )
