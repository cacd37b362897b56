"""Datasets and models: what the registry must hold is in the database, what it holds is on the chain."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.trainer.v1 import events_pb2 as trainer_events
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from chain_relay.chain import Block, Call, Chain
from chain_relay.tables import RegisteredDataset, RegisteredModel
from identity.digest import InvalidDigest, digest_to_bytes
from identity.leaf import name_hash
from identity.names import InvalidName, ModelVersionName, SnapshotName
from servicekit.database import reading, run_in_transaction
from servicekit.events import InvalidEvent

logger = logging.getLogger(__name__)

_ZERO = bytes(32)
_AT_ONCE = 20


def record_snapshot(session: Session, sealed: datanet_events.SnapshotSealed) -> None:
    """Notes that a sealed snapshot must be registered. Raises InvalidEvent for a wrong name or digest."""
    snapshot = sealed.snapshot
    _checked(SnapshotName, snapshot.name, snapshot.root, snapshot.manifest_digest)
    known = session.get(RegisteredDataset, snapshot.name)
    if known is not None and known.root != snapshot.root:
        raise InvalidEvent("SNAPSHOT_CHANGED", f"{snapshot.name} was {known.root}, now {snapshot.root}")
    if known is None:
        session.add(
            RegisteredDataset(
                name=snapshot.name, root=snapshot.root, manifest_digest=snapshot.manifest_digest, final=False
            )
        )


def record_model_version(session: Session, changed: trainer_events.ModelVersionChanged) -> None:
    """Notes a version's newest report and state. Raises InvalidEvent for a wrong name, digest or state."""
    version = changed.model_version
    digests = [version.digest, version.base_digest, version.adapter_digest]
    _checked(ModelVersionName, version.name, *digests, *filter(None, [version.report_digest]))
    if not 1 <= version.state <= 5:
        raise InvalidEvent("BAD_STATE", f"{version.name} has state {version.state}")
    known = session.get(RegisteredModel, version.digest)
    if known is None:
        known = RegisteredModel(version_digest=version.digest)
        session.add(known)
    known.name = version.name
    known.base_digest = version.base_digest
    known.adapter_digest = version.adapter_digest
    known.report_digest = version.report_digest
    known.state = int(version.state)
    known.final = False


class Registrar:
    """Finds the next registration the chain lacks."""

    def __init__(self, engine: Engine, chain: Chain) -> None:
        self._engine = engine
        self._chain = chain

    def next_calls(self, latest: Block, finalized: Block | None) -> Iterator[tuple[str, Call]]:
        """Calls (with their purposes) that would bring the registry closer to what it must hold."""
        with reading(self._engine) as session:
            datasets = session.scalars(
                select(RegisteredDataset).where(RegisteredDataset.final.is_(False)).limit(_AT_ONCE)
            ).all()
            models = session.scalars(
                select(RegisteredModel).where(RegisteredModel.final.is_(False)).limit(_AT_ONCE)
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
            # Written once: nothing here can mend it, and nothing else depends on it.
            logger.error("%s is registered with root %s, not %s", dataset.name, on_chain.hex(), dataset.root)
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
            # Only the state that was looked at: another event may have changed the row meanwhile.
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


def _checked(kind: type[SnapshotName] | type[ModelVersionName], name: str, *digests: str) -> None:
    try:
        kind.parse(name)
        for digest in digests:
            digest_to_bytes(digest)
    except (InvalidName, InvalidDigest) as error:
        raise InvalidEvent("BAD_NAME", str(error)) from None
