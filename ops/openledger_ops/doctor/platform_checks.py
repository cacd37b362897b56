"""Checks that no single service can answer: this machine, its environment, dead letters, the chain, Ray, the base model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from openledger.settlement.v1 import settlement_pb2

from openledger_client import services
from openledger_client.services import CHAIN_RELAY, INFERENCE, TRAINER
from openledger_ops.chain import ChainError, Node
from openledger_ops.doctor.finding import Finding, ok, problem, unchecked, warning
from openledger_ops.doctor.parallel import in_parallel
from servicekit.http_client import HttpClient, HttpError
from servicekit.settings import ServiceSettings

DISK_LOW, DISK_OUT = 0.10, 0.03
"""Free parts of the disk below which there is a warning, and a problem."""
_TIMEOUT_S = 5.0

# Read by programs that are not services, or by every program that calls services.
_OTHER_VARIABLES = {"TOKEN", "AS", "RPC", "ANVIL", "PROGRAM", "TLS_CA", "COMPUTE", "CRASH_AT", "CRASH_RECORD"}


def unknown_variables(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Variables of this shell that no program reads. A service names those with its own prefix itself (/readyz)."""
    known = {name.upper() for name in ServiceSettings.model_fields} | _OTHER_VARIABLES
    for variable in sorted(environment):
        name = variable.removeprefix("OPENLEDGER_")
        own = any(variable.startswith(service.variable("")) for service in services.ALL)
        if name != variable and not own and name not in known:
            yield warning(
                "machine", "unknown_variable", f"{variable} names no setting",
                "correct or remove it: what it was meant to change has its default",
            )  # fmt: skip


def disk(folder: Path) -> Iterator[Finding]:
    """Free space below the state folder, when the platform is on this machine."""
    if not folder.exists():
        return
    usage = shutil.disk_usage(folder)
    part = usage.free / usage.total
    detail = f"{usage.free / 2**30:.1f} GiB ({part:.0%}) are free below {folder}"
    if part >= DISK_LOW:
        yield ok("machine", "disk", detail)
        return
    report = problem if part < DISK_OUT else warning
    yield report("machine", "disk", detail, "free some space: a service that cannot write refuses work")


def dead_letters(
    counts: Mapping[str, float], waiting: Callable[[str, float], int | None]
) -> Iterator[Finding]:
    """Dead letters that were not redriven.

    `counts`: by dead-letter topic, how many there ever were, as consumers report. `waiting`: for a topic and that number, how
    many were not redriven; None where the event log cannot be read from here.
    """
    for topic, total in sorted(counts.items()):
        left = waiting(topic, total) if total else 0
        if left == 0:
            detail = f"all {total:.0f} in {topic} were redriven" if total else f"none in {topic}"
            yield ok("event log", "dead letters", detail)
            continue
        if left is None:
            detail = f"{total:.0f} in {topic}; how many were redriven is not known here"
        else:
            detail = f"{left} of {total:.0f} in {topic} were not redriven"
        command = f"`openledger dlq list {topic.removesuffix('.dlq')} --waiting`"
        yield warning(
            "event log", "dead letters", detail, f"{command} says why; redrive them after the cause is fixed"
        )


def ray(address: str) -> Finding:
    """Whether Ray's job server answers. A refusal because a token is missing is an answer too."""
    try:
        HttpClient(_TIMEOUT_S).exchange("GET", f"{address}/api/version")
    except HttpError as error:
        return problem(
            "ray", "reached", f"{address} does not answer: {error.reason}",
            f"start Ray, or correct {TRAINER.variable('ray_address')}; training runs wait until then",
        )  # fmt: skip
    return ok("ray", "reached", f"{address} answers")


def chain(rpc: str, info: settlement_pb2.SettlementInfo | None) -> Iterator[Finding]:
    """Whether a node answers and, where the relay's settlement info is known, whether it has the contracts."""
    node = Node(rpc, _TIMEOUT_S)
    try:
        yield from _chain(node, info)
    except ChainError as error:
        yield problem("chain", "node", str(error), "start the node, or correct OPENLEDGER_RPC")
    finally:
        node.close()


def _chain(node: Node, info: settlement_pb2.SettlementInfo | None) -> Iterator[Finding]:
    chain_id = node.chain_id()
    yield ok("chain", "node", f"{node.shown} answers for chain {chain_id}")
    if info is None:
        return
    if chain_id != info.chain_id:
        yield problem(
            "chain", "chain id", f"the node is of chain {chain_id}, the relay settles on {info.chain_id}",
            "give the relay and this command nodes of one chain",
        )  # fmt: skip
        return
    addresses = {
        "ledger": info.ledger_address,
        "distributor": info.distributor_address,
        "token": info.token_address,
        "registry": info.registry_address,
    }
    have = in_parallel([partial(node.has_code, address) for address in addresses.values()], 2 * _TIMEOUT_S)
    if None in have:  # a slow node, which is no reason to deploy anything
        late = f"{node.shown} has not said within {2 * _TIMEOUT_S:g} s whether they exist"
        yield unchecked("chain", "contracts", late, "check the node, then ask again")
        return
    missing = [
        f"{name} at {address}"
        for (name, address), has in zip(addresses.items(), have, strict=True)
        if not has
    ]
    if missing:
        yield problem(
            "chain", "contracts", f"no contract for {', '.join(missing)}",
            f"this chain was reset or is another one: deploy with `python -m {CHAIN_RELAY.module} deploy`, with a new"
            " relay database",
        )  # fmt: skip
    else:
        yield ok("chain", "contracts", f"all four are on chain {info.chain_id}")


def base_models(published: Iterable[str], served: Iterable[str]) -> Iterator[Finding]:
    """Whether the trainer can tune the base model that inference serves; both by digest."""
    tunable, answering = set(published), set(served)
    if not tunable:
        yield problem(
            TRAINER.name, "base model", "no base model is published: nothing can be trained",
            f"publish one: `python -m {TRAINER.programs['base models']} import NAME`",
        )  # fmt: skip
    elif not answering & tunable:
        both = f"{INFERENCE.variable('base_model')}, {TRAINER.variable('base_models')}"
        yield problem(
            INFERENCE.name, "base model", "inference serves a base model that the trainer does not know",
            f"give both the same base model ({both})",
        )  # fmt: skip
    else:
        yield ok(TRAINER.name, "base model", f"{len(tunable)} published, one of them served")
