"""chain-relay on a real chain: contracts deployed, answers taken in and sealed into batches, committed, finalized, rewarded."""

from __future__ import annotations

import atexit
import json
from pathlib import Path
from typing import Any

from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.settlement.v1 import settlement_pb2 as pb
from openledger.settlement.v1.settlement_pb2_grpc import SettlementServiceStub
from openledger.trainer.v1 import events_pb2 as trainer_events

from chain_relay.contracts import CONTRACT_OF, load_artifact
from chain_relay.service import build
from chain_relay.settings import Settings
from chain_relay.web3_chain import connect
from identity.digest import sha256_bytes
from openledger_testing import attributed_answers
from openledger_testing.anvil import Anvil
from openledger_testing.crash.service_run import Using
from openledger_testing.crash.service_run import live as live_service
from openledger_testing.crash.stored_state import (
    appearances,
    check_at_rest,
    check_objects,
    events,
    lag,
    one,
    rows,
)
from servicekit.eventlog import open_event_log, topics
from servicekit.eventlog.events import new_event, to_record
from servicekit.testing.waiting import eventually

TOPICS = (topics.ATTRIBUTION_SCORED_V1, topics.DATANET_SNAPSHOT_V1, topics.MODEL_VERSION_V1)
ANSWERS = 5

_node: Anvil | None = None
_bare = ""
"""anvil's name for the chain without contracts."""


def outside() -> None:
    """The chain does not die with the relay."""
    global _node
    _node = Anvil().__enter__()
    atexit.register(_node.__exit__, None, None, None)
    reset(Path())


def chain() -> Anvil:
    assert _node is not None
    return _node


def reset(folder: Path) -> None:
    """Every copy of the folder begins on a bare chain: the relay deploys its contracts too."""
    global _bare
    if _bare:
        chain().rpc("evm_revert", _bare)
    _bare = chain().rpc("evm_snapshot")


def prepare(folder: Path) -> None:
    """Everything that the relay consumes waits in the event log."""
    snapshot = datanet_events.SnapshotSealed()
    snapshot.snapshot.name = f"{attributed_answers.DATANET}/snapshots/1"
    snapshot.snapshot.root = snapshot.snapshot.manifest_digest = sha256_bytes(b"snapshot")
    version = trainer_events.ModelVersionChanged()
    version.model_version.name = "models/threat-intel/versions/1"
    version.model_version.digest = sha256_bytes(b"version")
    version.model_version.base_digest = version.model_version.adapter_digest = sha256_bytes(b"base")
    version.model_version.state = 4
    answers = [attributed_answers.scored() for _ in range(ANSWERS)]
    log = open_event_log(f"embedded:{folder / 'events.db'}")
    log.ensure_topics(TOPICS)
    log.producer().send(
        [
            to_record(new_event(topics.DATANET_SNAPSHOT_V1, attributed_answers.DATANET, snapshot, "test")),
            to_record(new_event(topics.MODEL_VERSION_V1, "models/threat-intel", version, "test")),
            *(
                to_record(new_event(topics.ATTRIBUTION_SCORED_V1, a.attribution.inference, a, "test"))
                for a in answers
            ),
        ]
    )
    log.close()


def settings(folder: Path) -> Settings:
    return Settings(
        state_dir=folder,
        auth_mode="development",
        rpc_url=chain().url,
        chain_deploy="development",
        reward_delay_s=0,
        batch_max_events=2,
        batch_max_age_s=3600,
        poll_interval_s=0.02,
        grace_s=5,
        log_level="WARNING",
    )


def database(folder: Path) -> Path:
    return folder / "chain_relay" / "chain_relay.db"


def live(folder: Path) -> None:
    live_service(build(settings(folder)), folder, use)


def use(using: Using) -> None:
    found = database(using.folder)
    eventually(
        lambda: lag(using.folder, "chain-relay", *(topic.name for topic in TOPICS)) == 0,
        "all events are taken in",
    )
    eventually(
        lambda: one(found, "SELECT count(*) FROM scored_answer WHERE batch_seq IS NULL") < 2,
        "full batches are sealed",
    )
    stub = using.stub(SettlementServiceStub, "admin", "admin")
    stub.FlushBatch(pb.FlushBatchRequest(request_id="flush"))
    mined_until(
        lambda: one(found, "SELECT count(*) FROM batch WHERE state != 'FINAL'") == 0, "all batches are final"
    )
    stub.ProposeRewardRoot(pb.ProposeRewardRootRequest(request_id="propose"))
    accepted = "SELECT count(*) FROM reward_root WHERE state = 'ACCEPTED'"
    mined_until(lambda: one(found, accepted) == 1, "the reward root is accepted")
    for table in ("registered_dataset", "registered_model"):
        registered = f"SELECT count(*) FROM {table} WHERE final"
        mined_until(lambda query=registered: one(found, query) == 1, f"{table} is final")
    mined_until(
        lambda: one(found, "SELECT count(*) FROM signed_transaction WHERE outcome = 'OPEN'") == 0,
        "nothing is open",
    )
    eventually(lambda: one(found, "SELECT count(*) FROM outbox") == 0, "all is published")


def mined_until(condition: Any, what: str) -> None:
    """Waits for a condition, and mines one block at each poll, as other users of the chain would."""

    def poll() -> bool:
        chain().mine()
        return bool(condition())

    eventually(poll, what)


def check(folder: Path) -> None:
    found = database(folder)
    given = sorted(
        a.attribution.inference for a in events(folder, topics.ATTRIBUTION_SCORED_V1.name).values()
    )
    assert [
        name for (name,) in rows(found, "SELECT inference FROM scored_answer ORDER BY inference")
    ] == given
    indexes = rows(
        found, "SELECT event_index FROM scored_answer WHERE batch_seq IS NOT NULL ORDER BY event_index"
    )
    assert indexes == [(n,) for n in range(ANSWERS)], "each answer is in one batch, at one place"
    batches = rows(found, "SELECT seq, first_event, event_count, root, data_digest FROM batch ORDER BY seq")
    assert [batch[:3] for batch in batches] == [(0, 0, 2), (1, 2, 2), (2, 4, 1)], batches
    assert {digest for *_, digest in batches} <= check_objects(folder)
    check_chain(folder, batches)
    check_money(found)
    published = [
        (m.batch.name, m.batch.state, m.moved_back)
        for m in events(folder, topics.SETTLEMENT_BATCH_V1.name).values()
    ]
    needed = {(f"batches/{seq}", state, False): 1 for seq, *_ in batches for state in (1, 2, 3, 4, 5)}
    assert appearances(published) == needed, "each state of a batch is published once"
    check_at_rest(folder, found, "chain-relay", *(topic.name for topic in TOPICS))


def check_chain(folder: Path, batches: list[tuple[Any, ...]]) -> None:
    """The ledger has each batch once, and no transaction but those that the database knows."""
    addresses = json.loads((folder / "chain" / "contracts.json").read_text())
    w3 = connect(chain().url)
    contracts = {
        name: w3.eth.contract(
            address=addresses[name], abi=load_artifact(settings(folder).artifacts, CONTRACT_OF[name]).abi
        )
        for name in CONTRACT_OF
    }
    commits = contracts["ledger"].events.Committed().get_logs(from_block=0)
    assert [(log["args"]["seq"], bytes(log["args"]["root"])) for log in commits] == [
        (b[0], b[3]) for b in batches
    ]
    proposals = contracts["distributor"].events.Proposed().get_logs(from_block=0)
    assert len(proposals) == 1, "the reward root was proposed once"
    nonces = [
        nonce
        for (nonce,) in rows(database(folder), "SELECT DISTINCT nonce FROM signed_transaction ORDER BY nonce")
    ]
    sent = w3.eth.get_transaction_count(w3.eth.accounts[0])
    assert nonces == list(range(sent - len(nonces), sent)), (
        "every transaction since the deployment is in the database"
    )
    held = contracts["token"].functions.balanceOf(addresses["distributor"]).call()
    owed = sum(int(amount) for (amount,) in rows(database(folder), "SELECT payout_total FROM batch"))
    assert held == max(settings(folder).development_funding, owed), "the distributor was funded once"


def check_money(found: Path) -> None:
    paid = sum(int(amount) for (amount,) in rows(found, "SELECT amount FROM journal"))
    earned = sum(int(amount) for (amount,) in rows(found, "SELECT amount FROM earning"))
    fees, dust = (
        sum(int(v) for (v,) in rows(found, f"SELECT {name} FROM scored_answer")) for name in ("fee", "dust")
    )
    assert fees == paid + dust
    assert earned == paid
