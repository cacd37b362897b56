"""Settings that `openledger up` gives to single services beyond those that it gives to all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from openledger_client.services import CHAIN_RELAY, DATANET, INFERENCE, TRAINER, Service
from openledger_ops.state_folder import gate_items_digest

if TYPE_CHECKING:
    from openledger_ops.up.plan import Plan

Settings = Callable[["Plan"], dict[str, str]]


def _datanet(plan: Plan) -> dict[str, str]:
    return {"gate_items_digest": gate_items_digest(plan.state_dir)}


def _trainer(plan: Plan) -> dict[str, str]:
    return {"ray_address": plan.ray_address, "base_models": plan.base_model}


def _inference(plan: Plan) -> dict[str, str]:
    return {"base_model": plan.base_digest() or plan.base_model}  # by digest: it is not published again


def _chain_relay(plan: Plan) -> dict[str, str]:
    # A block a second: polling more often costs processor time and finds nothing.
    return {"rpc_url": plan.rpc, "chain_deploy": "development", "poll_interval_s": "1"}


SETTINGS: Mapping[Service[Any], Settings] = {
    DATANET: _datanet,
    TRAINER: _trainer,
    INFERENCE: _inference,
    CHAIN_RELAY: _chain_relay,
}
"""Settings by service, for those that have any."""
