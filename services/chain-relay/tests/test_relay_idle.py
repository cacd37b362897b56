"""An idle relay asks its node for little, and misses nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest
from openledger.trainer.v1 import trainer_pb2

from chain_relay import convert, registrar
from chain_relay.chain import Chain
from identity.digest import sha256_bytes
from openledger_testing.relay_rig import FakeRig
from servicekit.database import transaction, utc_now

pytestmark = pytest.mark.slow


class CountingChain:
    """Counts the calls of a chain."""

    def __init__(self, chain: Chain) -> None:
        self.calls: Counter[str] = Counter()
        self._chain = chain

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._chain, name)
        if not callable(found):
            return found

        def counted(*arguments: Any) -> Any:
            self.calls[name] += 1
            return found(*arguments)

        return counted


@pytest.fixture
def chain(fake_rig: FakeRig) -> CountingChain:
    return CountingChain(fake_rig.chain)


@pytest.fixture
def now() -> list[float]:
    """The clock, in seconds, which a test sets."""
    return [0.0]


@pytest.fixture(autouse=True)
def idle(fake_rig: FakeRig, chain: CountingChain, now: list[float]) -> None:
    """A relay that has found nothing to do."""
    fake_rig.restart(cast(Chain, chain), clock=lambda: now[0])
    fake_rig.relay.poll()
    chain.calls.clear()


def calls_of_a_poll(fake_rig: FakeRig, chain: CountingChain) -> int:
    chain.calls.clear()
    fake_rig.relay.poll()
    return chain.calls.total()


def test_without_change_only_the_head_is_read(
    fake_rig: FakeRig, chain: CountingChain, now: list[float]
) -> None:
    for _ in range(3):
        assert calls_of_a_poll(fake_rig, chain) == 1
    now[0] += 5
    assert calls_of_a_poll(fake_rig, chain) > 5
    assert calls_of_a_poll(fake_rig, chain) == 1


def test_a_new_block_or_a_notice_leads_to_a_step(fake_rig: FakeRig, chain: CountingChain) -> None:
    fake_rig.mine()
    assert calls_of_a_poll(fake_rig, chain) > 5
    assert calls_of_a_poll(fake_rig, chain) == 1
    fake_rig.relay.notify()
    assert calls_of_a_poll(fake_rig, chain) > 5


def test_a_sealed_batch_is_committed_and_a_waiting_transaction_is_followed(fake_rig: FakeRig) -> None:
    fake_rig.feed(2)
    fake_rig.relay.seal_now()
    fake_rig.relay.poll()
    fake_rig.mine()
    fake_rig.relay.poll()
    assert fake_rig.commitments() == [0]


def test_a_new_event_of_a_known_version_is_registered(fake_rig: FakeRig) -> None:
    def record(state: trainer_pb2.ModelVersionState) -> None:
        version = trainer_pb2.ModelVersion(
            name="models/tactics/versions/1",
            digest=sha256_bytes(b"version"),
            base_digest=sha256_bytes(b"base"),
            adapter_digest=sha256_bytes(b"adapter"),
            state=state,
        )
        with transaction(fake_rig.engine) as session:
            registrar.record_model_version(session, convert.model_registration(version), utc_now())

    def recorded() -> int:
        for _ in range(3):
            fake_rig.relay.poll()
            fake_rig.mine()
        latest = fake_rig.chain.block("latest")
        assert latest is not None
        return fake_rig.chain.model(
            bytes.fromhex(sha256_bytes(b"version").removeprefix("sha256:")), latest
        ).state

    record(trainer_pb2.MODEL_VERSION_STATE_TRAINED)
    assert recorded() == trainer_pb2.MODEL_VERSION_STATE_TRAINED
    record(trainer_pb2.MODEL_VERSION_STATE_EVALUATED)
    assert recorded() == trainer_pb2.MODEL_VERSION_STATE_EVALUATED
