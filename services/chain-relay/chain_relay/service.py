"""Puts the relay together from its settings."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from openledger.settlement.v1 import settlement_pb2_grpc
from requests import RequestException
from sqlalchemy.orm import Session
from web3 import Web3
from web3.exceptions import Web3Exception

from chain_relay import events
from chain_relay.answers import Terms, release_held
from chain_relay.api import SettlementApi
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
from chain_relay.tables import BatchState
from chain_relay.web3_chain import Web3Chain, connect
from servicekit.database import run_in_transaction
from servicekit.errors import StartupError
from servicekit.request_ids import pruning
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
        raise StartupError(f"the node at {_shown(settings.rpc_url)} has no block")
    on_chain = chain.ledger(latest)

    def prepare(session: Session) -> None:
        open_ledger(session, chain.chain_id, chain.ledger_address, on_chain)
        _release_configured(session, settings.accounts)

    run_in_transaction(service.engine, prepare)
    limits = FeeLimits(int(settings.max_fee_gwei * _GWEI), settings.bump_after_s)
    relay = Relay(
        service.engine,
        service.objects,
        chain,
        Sender(service.engine, chain, signer, limits),
        RelayRules(
            settings.batch_max_events,
            settings.batch_max_age_s,
            settings.poll_interval_s,
            settings.reward_interval_s,
            BatchState[settings.reward_certainty.upper()],
        ),
        may_mint=chain.chain_id in DEVELOPMENT_CHAIN_IDS,
    )
    addresses = {name: str(getattr(deployment, name)) for name in CONTRACT_OF}
    settlement = Settlement(service.engine, chain, relay, settings, addresses, signer.address)
    service.add_references(references)
    service.add_servicer(
        settlement_pb2_grpc.add_SettlementServiceServicer_to_server, SettlementApi(settlement)
    )
    terms = Terms(settings.rates, settings.split, settings.accounts)
    service.add_consumer(events.GROUP, events.handlers(terms))
    service.add_thread("relay", relay.run)
    service.add_thread("request-ids", pruning(service.engine, settings.request_id_ttl_s))
    return service


def open_chain(settings: Settings) -> tuple[Web3, LocalSigner]:
    """The connection and the signer; waits a while for a node that is just starting. Raises StartupError."""
    w3 = connect(settings.rpc_url, settings.rpc_timeout_s)
    deadline = time.monotonic() + _CHAIN_PATIENCE_S
    while True:
        try:
            chain_id = int(w3.eth.chain_id)
            break
        except (RequestException, Web3Exception, ValueError) as error:
            if time.monotonic() > deadline:
                kind = type(error).__name__
                raise StartupError(f"no chain answers at {_shown(settings.rpc_url)}: {kind}") from None
            time.sleep(0.2)
    key = settings.signer_key.get_secret_value() if settings.signer_key else None
    return w3, open_signer(chain_id, key, settings.keystore, settings.keystore_password_file)


def _shown(rpc_url: str) -> str:
    """A node's address for people: providers put keys into paths and queries."""
    parts = urlsplit(rpc_url)
    return (
        f"{parts.scheme}://{parts.hostname}:{parts.port}"
        if parts.port
        else f"{parts.scheme}://{parts.hostname}"
    )


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
