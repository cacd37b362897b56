"""What no single service can tell: this machine, its environment, dead letters, the chain's contracts, Ray, the base model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from openledger.settlement.v1 import settlement_pb2

from openledger_cli.connection import SERVICES
from openledger_cli.doctor.finding import Finding, Level
from servicekit.settings import ServiceSettings

DISK_LOW, DISK_OUT = 0.10, 0.03
"""Free parts of the disk below which it is a warning, and a problem."""
_TIMEOUT_S = 5.0

# Read by programs that are not services, or by all that call services.
_OTHER_VARIABLES = {"TOKEN", "AS", "RPC", "ANVIL", "PROGRAM", "TLS_CA", "COMPUTE", "CRASH_AT", "CRASH_RECORD"}


def unknown_variables(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Variables of this shell that nobody reads. A service names those with its own prefix itself (see /readyz)."""
    known = {name.upper() for name in ServiceSettings.model_fields} | _OTHER_VARIABLES
    for variable in sorted(environment):
        name = variable.removeprefix("OPENLEDGER_")
        own = any(name.startswith(f"{service.upper()}_") for service in SERVICES)
        if name != variable and not own and name not in known:
            yield Finding(
                "warning", "machine", "unknown_variable", f"{variable} names no setting",
                "correct or remove it: whatever it was meant to change is at its default",
            )  # fmt: skip


def disk(folder: Path) -> Iterator[Finding]:
    """Room below the state folder, when the platform is on this machine."""
    if not folder.exists():
        return
    usage = shutil.disk_usage(folder)
    part = usage.free / usage.total
    detail = f"{usage.free / 2**30:.1f} GiB ({part:.0%}) are free below {folder}"
    if part >= DISK_LOW:
        yield Finding("ok", "machine", "disk", detail)
        return
    level: Level = "problem" if part < DISK_OUT else "warning"
    yield Finding(level, "machine", "disk", detail, "make room: a service that cannot write refuses work")


def dead_letters(
    counts: Mapping[str, float], waiting: Callable[[str, float], int | None]
) -> Iterator[Finding]:
    """What was refused and not replayed since.

    `counts`: by dead-letter topic, how many ever came there, as consumers say. `waiting`: of a topic and that
    number, how many were not replayed, None where the event log cannot be read from here.
    """
    for topic, ever in sorted(counts.items()):
        left = waiting(topic, ever) if ever else 0
        if left == 0:
            detail = f"all {ever:.0f} of {topic} were replayed" if ever else f"none in {topic}"
            yield Finding("ok", "event log", "dead letters", detail)
            continue
        told = f"{ever:.0f} stand in {topic}; how many were replayed is not known here" if left is None else (
            f"{left} of {ever:.0f} in {topic} were not replayed"
        )  # fmt: skip
        yield Finding(
            "warning", "event log", "dead letters", told,
            f"`openledger dlq list {topic.removesuffix('.dlq')} --waiting` tells why; replay them once mended",
        )  # fmt: skip


def ray(address: str) -> Finding:
    """Whether the job server that trains is there: a refusal for want of a token is an answer too."""
    try:
        httpx.get(f"{address}/api/version", timeout=_TIMEOUT_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Finding(
            "problem", "ray", "reached", f"{address} does not answer: {error}",
            "start Ray, or correct OPENLEDGER_TRAINER_RAY_ADDRESS; training runs wait until then",
        )  # fmt: skip
    return Finding("ok", "ray", "reached", f"{address} answers")


def chain(rpc: str, info: settlement_pb2.SettlementInfo | None) -> Iterator[Finding]:
    """Whether a node answers and, when the relay's settlement info is at hand, whether its contracts stand there."""
    try:
        chain_id = int(_ask(rpc, "eth_chainId"), 16)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        yield Finding(
            "problem", "chain", "node", f"{rpc} does not answer as a chain does: {error or type(error).__name__}",
            "start the node, or correct OPENLEDGER_RPC",
        )  # fmt: skip
        return
    yield Finding("ok", "chain", "node", f"{rpc} answers for chain {chain_id}")
    if info is None:
        return
    if chain_id != info.chain_id:
        yield Finding(
            "problem", "chain", "chain id", f"the node is of chain {chain_id}, the relay settles on {info.chain_id}",
            "give the relay and this command nodes of one chain",
        )  # fmt: skip
        return
    yield from _contracts(rpc, info)


def _contracts(rpc: str, info: settlement_pb2.SettlementInfo) -> Iterator[Finding]:
    addresses = {
        "ledger": info.ledger_address,
        "distributor": info.distributor_address,
        "token": info.token_address,
        "registry": info.registry_address,
    }
    missing = [f"{name} at {address}" for name, address in addresses.items() if _is_empty(rpc, address)]
    if missing:
        yield Finding(
            "problem", "chain", "contracts", f"nothing stands for {', '.join(missing)}",
            "this chain was begun anew or is another: deploy with `python -m chain_relay deploy`, on a new relay database",
        )  # fmt: skip
    else:
        yield Finding("ok", "chain", "contracts", f"all four stand on chain {info.chain_id}")


def _is_empty(rpc: str, address: str) -> bool:
    return str(_ask(rpc, "eth_getCode", address, "latest")) in ("", "0x")


def _ask(rpc: str, method: str, *parameters: Any) -> Any:
    question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    answer = httpx.post(rpc, json=question, timeout=_TIMEOUT_S, trust_env=False).raise_for_status().json()
    return answer["result"]


def base_models(published: Iterable[str], served: Iterable[str]) -> Iterator[Finding]:
    """Digests that the trainer can tune, and digests that inference answers by."""
    can_tune, answers_by = set(published), set(served)
    if not can_tune:
        yield Finding(
            "problem", "trainer", "base model", "no base model is published: nothing can be trained",
            "publish one: `python -m trainer.base_models import NAME`",
        )  # fmt: skip
    elif not answers_by & can_tune:
        yield Finding(
            "problem", "inference", "base model", "inference serves a base that the trainer does not know",
            "give both the same base model (OPENLEDGER_INFERENCE_BASE_MODEL, OPENLEDGER_TRAINER_BASE_MODELS)",
        )  # fmt: skip
    else:
        yield Finding("ok", "trainer", "base model", f"{len(can_tune)} published, one of them served")
