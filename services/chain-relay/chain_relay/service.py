"""Builds the relay from its settings."""

from __future__ import annotations

from functools import partial

from openledger.attribution.v1.attribution_pb2 import AttributionScored
from openledger.datanet.v1.events_pb2 import SnapshotSealed
from openledger.settlement.v1 import settlement_pb2_grpc
from openledger.trainer.v1.events_pb2 import ModelVersionChanged
from requests import RequestException
from sqlalchemy.orm import Session
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed
from web3 import Web3
from web3.exceptions import Web3Exception

from chain_relay import events
from chain_relay.answers import Terms, release_held
from chain_relay.api import SettlementApi
from chain_relay.audit import facts
from chain_relay.contracts import CONTRACT_OF, Deployment
from chain_relay.deploy import DeployPlan, check, deploy
from chain_relay.references import references
from chain_relay.relay import Relay, RelayRules
from chain_relay.sealing import open_ledger
from chain_relay.sender import FeeLimits, Sender
from chain_relay.settings import Settings
from chain_relay.settlement import Settlement
from chain_relay.signer import DEVELOPMENT_CHAIN_IDS, LocalSigner, open_signer
from chain_relay.split import MODEL_OWNER, PLATFORM, STAKERS, TREASURY, Accounts
from chain_relay.store import batches
from chain_relay.store.tables import BatchState
from chain_relay.web3_chain import Web3Chain, connect
from servicekit.database import run_in_transaction
from servicekit.database.watches import Changes
from servicekit.errors import StartupError
from servicekit.eventlog import topics
from servicekit.http_client import shown
from servicekit.server import Service

_CHAIN_PATIENCE_S = 30.0
_GWEI = 10**9


def build(settings: Settings) -> Service:
    """The service, ready to run. Raises StartupError with the one line that an operator needs."""
    w3, signer = open_chain(settings)
    deployment = open_deployment(w3, signer, settings)
    service = Service("chain_relay", settings, "chain_relay")
    chain = Web3Chain(w3, deployment, settings.artifacts)
    latest = chain.block("latest")
    if latest is None:
        raise StartupError(f"the node at {shown(settings.rpc_url)} has no block")
    on_chain = chain.ledger(latest)

    def prepare(session: Session) -> None:
        open_ledger(session, chain.chain_id, chain.ledger_address, on_chain)
        _release_configured(session, settings.accounts)

    run_in_transaction(service.engine, prepare)
    limits = FeeLimits(int(settings.max_fee_gwei * _GWEI), settings.bump_after_s)
    changes = Changes(service.engine, batches.versions)
    relay = Relay(
        service.engine,
        service.objects,
        chain,
        Sender(service.engine, chain, signer, limits),
        RelayRules(
            batch_max_events=settings.batch_max_events,
            batch_max_age_s=settings.batch_max_age_s,
            poll_interval_s=settings.poll_interval_s,
            reward_interval_s=settings.reward_interval_s,
            reward_certainty=BatchState[settings.reward_certainty.upper()],
        ),
        changes=changes,
        may_mint=chain.chain_id in DEVELOPMENT_CHAIN_IDS,
    )
    addresses = {name: str(getattr(deployment, name)) for name in CONTRACT_OF}
    settlement = Settlement(
        engine=service.engine,
        chain=chain,
        relay=relay,
        settings=settings,
        contracts=addresses,
        committer=signer.address,
    )
    service.add_references(references)
    service.add_facts(facts)
    service.add_servicer(
        settlement_pb2_grpc.add_SettlementServiceServicer_to_server, SettlementApi(settlement, changes)
    )
    terms = Terms(settings.rates, settings.split, settings.accounts)
    service.subscribe(
        topics.ATTRIBUTION_SCORED_V1,
        AttributionScored,
        partial(events.attribution_scored, terms=terms),
        group=events.GROUP,
    )
    service.subscribe(topics.DATANET_SNAPSHOT_V1, SnapshotSealed, events.snapshot_sealed, group=events.GROUP)
    service.subscribe(
        topics.MODEL_VERSION_V1, ModelVersionChanged, events.model_version_changed, group=events.GROUP
    )
    service.add_thread("relay", relay.loop)
    service.add_request_ids(settings.request_id_ttl_s)
    return service


def open_chain(settings: Settings) -> tuple[Web3, LocalSigner]:
    """The connection and the signer; waits a while for a node that is just starting. Raises StartupError."""
    w3 = connect(settings.rpc_url, settings.rpc_timeout_s)
    waiting = Retrying(
        retry=retry_if_exception_type((RequestException, Web3Exception, ValueError)),
        stop=stop_after_delay(_CHAIN_PATIENCE_S),
        wait=wait_fixed(0.2),
        reraise=True,
    )
    try:
        chain_id = waiting(lambda: int(w3.eth.chain_id))
    except (RequestException, Web3Exception, ValueError) as error:
        kind = type(error).__name__
        raise StartupError(f"no chain answers at {shown(settings.rpc_url)}: {kind}") from None
    key = settings.signer_key.get_secret_value() if settings.signer_key else None
    return w3, open_signer(chain_id, key, settings.keystore, settings.keystore_password_file)


def open_deployment(w3: Web3, signer: LocalSigner, settings: Settings) -> Deployment:
    """The contracts that settings name, deployed first if that was asked for. Raises StartupError."""
    file = settings.deployment_file
    deployment = Deployment.load(file)
    if deployment is None:
        chain_id = int(w3.eth.chain_id)
        if settings.chain_deploy != "development":
            raise StartupError(f"{file} does not exist: run `python -m chain_relay deploy` first")
        if chain_id not in DEVELOPMENT_CHAIN_IDS:
            raise StartupError(f"chain_deploy=development, but chain {chain_id} is not a development chain")
        plan = DeployPlan(settings.artifacts, settings.reward_delay_s, settings.development_funding)
        deployment = deploy(w3, signer, plan, file)
    check(w3, deployment, file)
    return deployment


def _release_configured(session: Session, accounts: Accounts) -> None:
    """Gives what was held for the platform, the stakers and owners to addresses that settings now name."""
    release_held(session, PLATFORM, PLATFORM, accounts.platform)
    release_held(session, TREASURY, PLATFORM, accounts.platform)
    release_held(session, STAKERS, STAKERS, accounts.stakers)
    for owner, address in accounts.owners.items():
        release_held(session, MODEL_OWNER, owner, address)
