"""Keeps the on-chain registry up to date: the database has what it must hold, the chain what it holds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from chain_relay.chain import Block, Call, Chain
from chain_relay.store.tables import RegisteredDataset, RegisteredModel
from identity.digest import digest_to_bytes
from identity.leaf import name_hash
from servicekit.database import reading, run_in_transaction
from servicekit.eventlog.events import InvalidEvent

logger = logging.getLogger(__name__)

_ZERO = bytes(32)
_AT_ONCE = 20


@dataclass(frozen=True, kw_only=True)
class SnapshotRegistration:
    """A sealed snapshot as the registry names it."""

    name: str
    root: str
    manifest_digest: str


@dataclass(frozen=True, kw_only=True)
class ModelRegistration:
    """A model version as the registry names it."""

    name: str
    version_digest: str
    base_digest: str
    adapter_digest: str
    report_digest: str
    """"" before its evaluation."""
    state: int
    """The number of `openledger.trainer.v1.ModelVersionState`."""


def record_snapshot(session: Session, snapshot: SnapshotRegistration) -> None:
    """Notes that a sealed snapshot must be registered. Raises InvalidEvent when it is known with another root."""
    known = session.get(RegisteredDataset, snapshot.name)
    if known is not None and known.root != snapshot.root:
        raise InvalidEvent(
            "SNAPSHOT_CHANGED", f"{snapshot.name}: root was {known.root}, is now {snapshot.root}"
        )
    if known is None:
        session.add(RegisteredDataset(**asdict(snapshot), final=False))


def record_model_version(session: Session, version: ModelRegistration, event_time: datetime) -> None:
    """Notes a version's newest report and state, to be registered. An event older than the newest one changes nothing:
    dead letters that are sent again arrive late."""
    known = session.get(RegisteredModel, version.version_digest)
    if known is not None and known.event_time is not None and known.event_time > event_time:
        return
    if known is None:
        known = RegisteredModel(version_digest=version.version_digest)
        session.add(known)
    known.name = version.name
    known.base_digest = version.base_digest
    known.adapter_digest = version.adapter_digest
    known.report_digest = version.report_digest
    known.state = version.state
    known.event_time = event_time
    known.final = False


class Registrar:
    """Finds the next registration the chain lacks."""

    def __init__(self, engine: Engine, chain: Chain) -> None:
        self._engine = engine
        self._chain = chain

    def next_calls(self, latest: Block, finalized: Block | None) -> Iterator[tuple[str, Call]]:
        """Yields calls, with their purposes, that register what the registry lacks."""
        with reading(self._engine) as session:
            datasets = session.scalars(
                select(RegisteredDataset).where(RegisteredDataset.final.is_(False)).limit(_AT_ONCE)
            ).all()
            # One transaction per version: promoted before retired, so that the registry never lacks a promoted version.
            models = session.scalars(
                select(RegisteredModel)
                .where(RegisteredModel.final.is_(False))
                .order_by(RegisteredModel.state)
                .limit(_AT_ONCE)
            ).all()
        for dataset in datasets:
            yield from self._dataset(dataset, latest, finalized)
        for model in models:
            yield from self._model(model, latest, finalized)

    def _dataset(
        self, dataset: RegisteredDataset, latest: Block, finalized: Block | None
    ) -> Iterator[tuple[str, Call]]:
        key, root = name_hash(dataset.name), digest_to_bytes(dataset.root)
        on_chain = self._chain.dataset_root(key, latest)
        if on_chain == _ZERO:
            args = (key, root, digest_to_bytes(dataset.manifest_digest))
            yield f"dataset/{dataset.name}", Call("registry", "registerDataset", args)
        elif on_chain != root:
            # The contract writes a name once: no transaction can correct it, and nothing else depends on it.
            logger.error(
                "%s is registered on chain with root %s, expected %s",
                dataset.name,
                on_chain.hex(),
                dataset.root,
            )
        elif finalized is not None and self._chain.dataset_root(key, finalized) == root:
            done = update(RegisteredDataset).where(RegisteredDataset.name == dataset.name).values(final=True)
            run_in_transaction(self._engine, lambda session: session.execute(done))

    def _model(
        self, model: RegisteredModel, latest: Block, finalized: Block | None
    ) -> Iterator[tuple[str, Call]]:
        key = digest_to_bytes(model.version_digest)
        report = digest_to_bytes(model.report_digest) if model.report_digest else _ZERO
        on_chain = self._chain.model(key, latest)
        if (on_chain.report_digest, on_chain.state) != (report, model.state):
            base, adapter = digest_to_bytes(model.base_digest), digest_to_bytes(model.adapter_digest)
            call = Call("registry", "recordModel", (key, base, adapter, report, model.state))
            yield f"model/{model.version_digest}", call
        elif finalized is not None and self._chain.model(key, finalized) == on_chain:
            # Only the state that was compared: another event may have changed the row meanwhile.
            done = (
                update(RegisteredModel)
                .where(
                    RegisteredModel.version_digest == model.version_digest,
                    RegisteredModel.state == model.state,
                    RegisteredModel.report_digest == model.report_digest,
                )
                .values(final=True)
            )
            run_in_transaction(self._engine, lambda session: session.execute(done))
