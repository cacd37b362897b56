"""The fields of every list, as `--help` names them; a test compares them with what the services declare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer


@dataclass(frozen=True, kw_only=True)
class Fields:
    """What a list can be filtered and sorted by.

    Attributes:
        sortable: fields for --filter and --order-by.
        others: fields for --filter alone.
        filter: an example for --filter.
        order_by: an example for --order-by.
    """

    sortable: Sequence[str]
    others: Sequence[str] = ()
    filter: str
    order_by: str

    def filter_option(self) -> Any:
        """Returns the option --filter."""
        fields = ", ".join([*self.sortable, *self.others])
        return typer.Option(
            "--filter",
            help=f"Only items for which this holds (AIP-160), e.g. '{self.filter}'. Fields: {fields}.",
        )

    def order_option(self) -> Any:
        """Returns the option --order-by."""
        fields = ", ".join(self.sortable)
        return typer.Option(
            "--order-by", help=f'Fields to sort by (AIP-132), e.g. "{self.order_by}". Fields: {fields}.'
        )


DATANETS = Fields(
    sortable=["name", "display_name", "licence", "owner", "create_time"],
    others=["description"],
    filter='owner = "alice"',
    order_by="create_time desc",
)
CONTRIBUTORS = Fields(
    sortable=[
        "name",
        "principal",
        "display_name",
        "payout_address",
        "consent_licence",
        "consent_time",
        "accepted_count",
        "pending_count",
        "rejected_count",
    ],
    filter="accepted_count > 100",
    order_by="accepted_count desc",
)
RECORDS = Fields(
    sortable=["create_time"],
    others=["name", "digest", "contributor", "state", "rule", "reason"],
    filter="state = REJECTED AND rule = low_quality",
    order_by="create_time desc",
)
SNAPSHOTS = Fields(
    sortable=["name", "record_count", "cluster_count", "near_duplicate_cluster_count", "seal_time"],
    others=["root"],
    filter="record_count >= 1000",
    order_by="record_count desc",
)
SEAL_OPERATIONS = Fields(
    sortable=[
        "name",
        "state",
        "snapshot",
        "principal",
        "attempt_count",
        "create_time",
        "start_time",
        "end_time",
    ],
    filter="state = FAILED",
    order_by="end_time desc",
)
BASE_MODELS = Fields(
    sortable=["name", "display_name", "digest", "licence", "parameter_count"],
    filter="parameter_count < 1000000000",
    order_by="parameter_count desc",
)
RUNS = Fields(
    sortable=[
        "name",
        "state",
        "model",
        "base_model",
        "principal",
        "create_time",
        "start_time",
        "end_time",
    ],
    filter="state = FAILED",
    order_by="create_time desc",
)
VERSIONS = Fields(
    sortable=["state", "verdict", "model", "base_model", "owner", "training_run"],
    others=["name", "digest", "adapter_digest", "report_digest", "policy_digest"],
    filter="state = PROMOTED",
    order_by="state desc",
)
OVERRIDES = Fields(
    sortable=["name", "model", "state", "requester", "create_time"],
    others=["model_version", "report_digest"],
    filter="state = PENDING",
    order_by="create_time desc",
)
PROMOTIONS = Fields(
    sortable=["kind", "principal", "override", "promote_time"],
    others=["name", "hash", "model_version", "report_digest"],
    filter="kind = OVERRIDDEN",
    order_by="promote_time desc",
)
GATE_POLICIES = Fields(
    sortable=["policy", "state", "requester", "create_time"],
    others=["name", "digest"],
    filter="state = PENDING",
    order_by="create_time desc",
)
SERVED_MODELS = Fields(
    sortable=["name", "is_default"],
    others=["base_digest", "adapter_digest", "version_digest", "report_digest"],
    filter="is_default = true",
    order_by="name desc",
)
ATTRIBUTIONS = Fields(
    sortable=["name", "inference", "score_time", "unattributed_ppm"],
    others=["state", "model.name", "principal", "digest"],
    filter="state = SCORED AND unattributed_ppm < 500000",
    order_by="unattributed_ppm desc",
)
INDEXES = Fields(
    sortable=["name", "model_version", "record_count", "control_count"],
    others=["digest", "ready", "progress.stage", "error"],
    filter="ready = false",
    order_by="record_count desc",
)
BATCHES = Fields(
    sortable=[
        "name",
        "state",
        "seq",
        "first_event",
        "event_count",
        "block_number",
        "gas_used",
        "reorg_count",
    ],
    filter="state = FINAL",
    order_by="event_count desc",
)
BALANCES = Fields(
    sortable=["kind", "beneficiary", "address", "earned"],
    filter="kind = contributor",
    order_by="earned desc",
)
REWARD_ROOTS = Fields(
    sortable=["name", "state", "number", "account_count", "last_seq"],
    filter="state = ACCEPTED",
    order_by="account_count desc",
)
DEAD_LETTERS = Fields(
    sortable=[
        "topic",
        "dlq_offset",
        "reason",
        "detail",
        "group",
        "time",
        "partition",
        "offset",
        "event_id",
        "event_type",
        "key",
    ],
    others=["redriven"],
    filter="redriven = false",
    order_by="time desc",
)
REFERENCES = Fields(
    sortable=["name", "time", "objects"],
    others=["pinned"],
    filter="pinned = true",
    order_by="objects desc",
)
