"""Between the domain and the API's messages."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from openledger.datanet.v1 import datanet_pb2 as pb

from datanet import definition, entities, names
from datanet.decision import Result
from datanet.definition import DEFAULT_ENTITIES, DEFAULT_MAX_LENGTH, Field, QualityPolicy, RecordSchema
from datanet.quality import EXACT_DUPLICATE
from datanet.snapshot import SplitRule
from identity.names import ContributorName, DatanetName
from servicekit.database import utc_now
from servicekit.errors import AlreadyExists, InvalidArgument, to_status


def timestamp(time: datetime | None) -> Timestamp | None:
    """A moment; None stays unset."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message


def to_datanet(name: str, message: pb.Datanet) -> definition.Datanet:
    """The Datanet a request describes, with the defaults that zero values stand for."""
    return definition.Datanet(
        name=name,
        owner="",
        licence=message.licence,
        schema=RecordSchema(
            tuple(
                Field(
                    each.name,
                    each.required,
                    each.max_length or DEFAULT_MAX_LENGTH,
                    tuple(each.allowed_values),
                    each.description,
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
        manual_review=message.review_mode == pb.REVIEW_MODE_MANUAL,
    )


def datanet(value: definition.Datanet) -> pb.Datanet:
    """The message, with every default written out."""
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
                    allowed_values=each.allowed_values,
                    description=each.description,
                )
                for each in value.schema.fields
            ],
            prompt_template=value.schema.prompt_template,
            completion_template=value.schema.completion_template,
        ),
        policy=pb.QualityPolicy(
            min_words=policy.min_words,
            personal_data_entities=policy.personal_data_entities,
            max_records_per_contributor=policy.max_records_per_contributor,
            near_duplicate_threshold=policy.near_duplicate_threshold,
            gate_items_digest=policy.gate_items_digest,
            review_mode=pb.REVIEW_MODE_MANUAL if policy.manual_review else pb.REVIEW_MODE_AUTOMATIC,
        ),
        treasury_address=value.treasury_address,
        create_time=timestamp(value.create_time),
    )


def to_contributor(name: str, message: pb.Contributor) -> entities.Contributor:
    """The contributor a request describes."""
    return entities.Contributor(
        name=name,
        principal=message.principal,
        display_name=message.display_name,
        payout_address=message.payout_address,
        consent_licence=message.consent_licence,
        consent_time=utc_now(),
    )


def contributor(value: entities.Contributor) -> pb.Contributor:
    """The message."""
    return pb.Contributor(
        name=value.name,
        principal=value.principal,
        display_name=value.display_name,
        payout_address=value.payout_address,
        consent_licence=value.consent_licence,
        consent_time=timestamp(value.consent_time),
        accepted_count=value.accepted_count,
        rejected_count=value.rejected_count,
    )


def record(value: entities.StoredRecord) -> pb.Record:
    """The message."""
    return pb.Record(
        name=value.name,
        digest=value.digest,
        contributor=value.contributor,
        state=pb.RecordState.ValueType(value.state),
        rule=value.rule,
        reason=value.reason,
        content=value.content,
        create_time=timestamp(value.create_time),
    )


def result(sequence: int, value: Result) -> pb.ContributeResponse:
    """The answer to one record of a stream."""
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


def snapshot(value: entities.Snapshot) -> pb.Snapshot:
    """The message."""
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
            for each in value.contributors
        ],
        rejected=[pb.Snapshot.RuleCount(rule=rule, record_count=records) for rule, records in value.rejected],
        seal_time=timestamp(value.seal_time),
    )


def to_filter(parent: DatanetName, contributor: str) -> ContributorName | None:
    """The contributor whose records are asked for. Raises InvalidArgument for one of another Datanet."""
    if not contributor:
        return None
    name = names.parse("contributor", ContributorName, contributor)
    if name.datanet != parent.datanet:
        raise InvalidArgument("contributor", "parent", f"must be a contributor to {parent}", contributor)
    return name


def to_split_rule(parent: DatanetName, request: pb.SealSnapshotRequest) -> SplitRule:
    """How a request wants clusters dealt out; zero values stand for the defaults."""
    defaults = SplitRule(str(parent))
    return SplitRule(
        request.split_salt or defaults.salt,
        request.held_out_fraction or defaults.held_out_fraction,
        request.control_fraction or defaults.control_fraction,
    )
