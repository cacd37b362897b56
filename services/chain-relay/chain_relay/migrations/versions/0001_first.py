"""Batches, journal, transactions, registry, reward roots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "batch",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first_event", sa.BigInteger(), nullable=False),
        sa.Column("event_count", sa.Integer(), nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("data_digest", sa.String(length=71), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "SEALED",
                "SUBMITTED",
                "COMMITTED",
                "SETTLED",
                "FINAL",
                name="batchstate",
                native_enum=False,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("reorg_count", sa.Integer(), nullable=False),
        sa.Column("fee_total", sa.String(length=78), nullable=False),
        sa.Column("payout_total", sa.String(length=78), nullable=False),
        sa.Column("dust", sa.String(length=78), nullable=False),
        sa.Column("transaction_hash", sa.String(length=66), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.String(length=66), nullable=False),
        sa.Column("gas_used", sa.BigInteger(), nullable=False),
        sa.Column("gas_price", sa.String(length=78), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_batch")),
    )
    with op.batch_alter_table("batch", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_batch_state"), ["state"], unique=False)

    op.create_table(
        "inbox",
        sa.Column("consumer", sa.String(length=200), nullable=False),
        sa.Column("event_id", sa.String(length=64), nullable=False),
        sa.Column("processed_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "event_id", name=op.f("pk_inbox")),
    )
    with op.batch_alter_table("inbox", schema=None) as batch_op:
        batch_op.create_index("inbox_by_age", ["processed_ms"], unique=False)

    op.create_table(
        "ledger",
        sa.Column("address", sa.String(length=42), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("next_seq", sa.BigInteger(), nullable=False),
        sa.Column("next_event", sa.BigInteger(), nullable=False),
        sa.Column("baseline_gas", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("address", name=op.f("pk_ledger")),
    )
    op.create_table(
        "outbox",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("event_id", sa.String(length=64), nullable=False),
        sa.Column("topic", sa.String(length=249), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        sa.UniqueConstraint("event_id", name=op.f("uq_outbox_event_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "registered_dataset",
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("root", sa.String(length=71), nullable=False),
        sa.Column("manifest_digest", sa.String(length=71), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_registered_dataset")),
    )
    with op.batch_alter_table("registered_dataset", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_registered_dataset_final"), ["final"], unique=False)

    op.create_table(
        "registered_model",
        sa.Column("version_digest", sa.String(length=71), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("base_digest", sa.String(length=71), nullable=False),
        sa.Column("adapter_digest", sa.String(length=71), nullable=False),
        sa.Column("report_digest", sa.String(length=71), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("version_digest", name=op.f("pk_registered_model")),
    )
    with op.batch_alter_table("registered_model", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_registered_model_final"), ["final"], unique=False)

    op.create_table(
        "request",
        sa.Column("rpc", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("made", sa.String(length=128), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("rpc", "request_id", name=op.f("pk_request")),
    )
    op.create_table(
        "reward_root",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "PENDING",
                "PROPOSED",
                "ACCEPTED",
                "VETOED",
                name="rewardrootstate",
                native_enum=False,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("account_count", sa.Integer(), nullable=False),
        sa.Column("total", sa.String(length=78), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accept_after", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_reward_root")),
    )
    op.create_table(
        "signed_transaction",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("hash", sa.String(length=66), nullable=False),
        sa.Column("purpose", sa.String(length=300), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("to", sa.String(length=42), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("gas_limit", sa.BigInteger(), nullable=False),
        sa.Column("max_fee", sa.String(length=78), nullable=False),
        sa.Column("priority_fee", sa.String(length=78), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column(
            "outcome",
            sa.Enum(
                "OPEN", "SUCCEEDED", "REVERTED", "REPLACED", name="outcome", native_enum=False, length=16
            ),
            nullable=False,
        ),
        sa.Column("sign_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gas_used", sa.BigInteger(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signed_transaction")),
        sa.UniqueConstraint("hash", name=op.f("uq_signed_transaction_hash")),
    )
    with op.batch_alter_table("signed_transaction", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_signed_transaction_purpose"), ["purpose"], unique=False)
        batch_op.create_index("signed_transaction_by_nonce", ["nonce", "outcome"], unique=False)

    op.create_table(
        "batch_change",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("batch_seq", sa.BigInteger(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "SEALED",
                "SUBMITTED",
                "COMMITTED",
                "SETTLED",
                "FINAL",
                name="batchstate",
                native_enum=False,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["batch_seq"], ["batch.seq"], name=op.f("fk_batch_change_batch_seq_batch")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch_change")),
    )
    with op.batch_alter_table("batch_change", schema=None) as batch_op:
        batch_op.create_index("batch_change_by_batch", ["batch_seq", "id"], unique=False)

    op.create_table(
        "earning",
        sa.Column("batch_seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("beneficiary", sa.String(length=256), nullable=False),
        sa.Column("address", sa.String(length=42), nullable=False),
        sa.Column("amount", sa.String(length=78), nullable=False),
        sa.ForeignKeyConstraint(["batch_seq"], ["batch.seq"], name=op.f("fk_earning_batch_seq_batch")),
        sa.PrimaryKeyConstraint("batch_seq", "kind", "beneficiary", "address", name=op.f("pk_earning")),
    )
    op.create_table(
        "reward_account",
        sa.Column("reward_root", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.String(length=42), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("cumulative", sa.String(length=78), nullable=False),
        sa.ForeignKeyConstraint(
            ["reward_root"], ["reward_root.number"], name=op.f("fk_reward_account_reward_root_reward_root")
        ),
        sa.PrimaryKeyConstraint("reward_root", "address", name=op.f("pk_reward_account")),
        sa.UniqueConstraint("reward_root", "position", name=op.f("uq_reward_account_reward_root")),
    )
    op.create_table(
        "scored_answer",
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("inference", sa.String(length=64), nullable=False),
        sa.Column("model_digest", sa.String(length=71), nullable=False),
        sa.Column("report_digest", sa.String(length=71), nullable=False),
        sa.Column("record_digest", sa.String(length=71), nullable=False),
        sa.Column("fee", sa.String(length=78), nullable=False),
        sa.Column("dust", sa.String(length=78), nullable=False),
        sa.Column("receive_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("batch_seq", sa.BigInteger(), nullable=True),
        sa.Column("event_index", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["batch_seq"], ["batch.seq"], name=op.f("fk_scored_answer_batch_seq_batch")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_scored_answer")),
        sa.UniqueConstraint("inference", name=op.f("uq_scored_answer_inference")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("scored_answer", schema=None) as batch_op:
        batch_op.create_index("scored_answer_by_batch", ["batch_seq", "position"], unique=False)

    op.create_table(
        "journal",
        sa.Column("inference", sa.String(length=64), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("beneficiary", sa.String(length=256), nullable=False),
        sa.Column("address", sa.String(length=42), nullable=False),
        sa.Column("amount", sa.String(length=78), nullable=False),
        sa.ForeignKeyConstraint(
            ["inference"], ["scored_answer.inference"], name=op.f("fk_journal_inference_scored_answer")
        ),
        sa.PrimaryKeyConstraint("inference", "line", name=op.f("pk_journal")),
    )
    with op.batch_alter_table("journal", schema=None) as batch_op:
        batch_op.create_index("journal_by_beneficiary", ["kind", "beneficiary", "address"], unique=False)


def downgrade() -> None:
    op.drop_table("journal")
    op.drop_table("scored_answer")
    op.drop_table("reward_account")
    op.drop_table("earning")
    op.drop_table("batch_change")
    op.drop_table("signed_transaction")
    op.drop_table("reward_root")
    op.drop_table("request")
    op.drop_table("registered_model")
    op.drop_table("registered_dataset")
    op.drop_table("outbox")
    op.drop_table("ledger")
    op.drop_table("inbox")
    op.drop_table("batch")
