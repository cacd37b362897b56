"""The help of every list names the fields that the service declares, and its examples are accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from attribution.store import ANSWERS, INDEXES
from chain_relay.store.balances import BALANCES, REWARD_ROOTS
from chain_relay.store.batches import BATCHES
from datanet.store.contributors import CONTRIBUTORS
from datanet.store.datanets import DATANETS
from datanet.store.operations import OPERATIONS
from datanet.store.records import RECORDS
from datanet.store.snapshots import SNAPSHOTS
from inference.catalogue import SERVED_MODELS
from openledger_cli import lists
from openledger_cli.__main__ import app
from openledger_ops.lists import DEAD_LETTERS, REFERENCES
from openledger_testing.every_rpc import METHODS
from openledger_testing.rpc_commands import COMMANDS
from openledger_testing.rpc_names import OVERRIDE, RUN, VERSION
from servicekit.lists import Listing, Query
from trainer.base_models import LISTING as BASE_MODELS
from trainer.store.overrides import LISTING as OVERRIDES
from trainer.store.policies import LISTING as GATE_POLICIES
from trainer.store.promotions import LISTING as PROMOTIONS
from trainer.store.runs import LISTING as RUNS
from trainer.store.versions import LISTING as VERSIONS

DIGEST = "0" * 64
ULID = RUN.removeprefix("trainingRuns/")
LISTS: dict[str, tuple[lists.Fields, Listing, str]] = {
    "ListDatanets": (lists.DATANETS, DATANETS, "datanets/d"),
    "ListContributors": (lists.CONTRIBUTORS, CONTRIBUTORS, "datanets/d/contributors/c"),
    "ListRecords": (lists.RECORDS, RECORDS, f"datanets/d/records/{DIGEST}"),
    "ListSnapshots": (lists.SNAPSHOTS, SNAPSHOTS, "datanets/d/snapshots/1"),
    "ListSealOperations": (lists.SEAL_OPERATIONS, OPERATIONS, f"datanets/d/sealOperations/{ULID}"),
    "ListBaseModels": (lists.BASE_MODELS, BASE_MODELS, "baseModels/b"),
    "ListTrainingRuns": (lists.RUNS, RUNS, RUN),
    "ListModelVersions": (lists.VERSIONS, VERSIONS, VERSION),
    "ListPromotionOverrides": (lists.OVERRIDES, OVERRIDES, OVERRIDE),
    "ListGatePolicies": (lists.GATE_POLICIES, GATE_POLICIES, "gatePolicies/p/versions/1"),
    "ListPromotions": (lists.PROMOTIONS, PROMOTIONS, "models/m/promotions/1"),
    "ListServedModels": (lists.SERVED_MODELS, SERVED_MODELS, VERSION),
    "ListAttributions": (lists.ATTRIBUTIONS, ANSWERS, f"attributions/{ULID}"),
    "ListAttributionIndexes": (lists.INDEXES, INDEXES, VERSION),
    "ListBatches": (lists.BATCHES, BATCHES, "batches/1"),
    "ListBalances": (lists.BALANCES, BALANCES, ""),
    "ListRewardRoots": (lists.REWARD_ROOTS, REWARD_ROOTS, "rewardRoots/1"),
}
"""Per method: what the help says, what the service declares, and the name of an item (balances have none)."""


OPERATORS: dict[str, tuple[lists.Fields, Listing]] = {
    "dlq list": (lists.DEAD_LETTERS, DEAD_LETTERS),
    "objects references": (lists.REFERENCES, REFERENCES),
}
"""Lists that no service serves."""


def accept(listing: Listing, *, filter: str = "", order_by: str = "") -> None:
    """Raises InvalidArgument for what the list refuses."""
    listing.page_of([], Query(filter=filter, order_by=order_by), bytes_of=lambda item: 0)


def test_every_list_is_here() -> None:
    assert set(LISTS) == {method for method in METHODS if method.startswith("List")}


@pytest.mark.parametrize("method", LISTS)
def test_help_names_the_fields_that_the_service_declares(method: str) -> None:
    told, listing, _ = LISTS[method]
    sortable = {name for name, declared in listing.fields.items() if declared.sortable}
    assert (set(told.sortable), set(told.others)) == (sortable, set(listing.fields) - sortable)


@pytest.mark.parametrize("method", LISTS)
def test_the_examples_of_the_help_are_accepted(method: str) -> None:
    told, listing, _ = LISTS[method]
    accept(listing, filter=told.filter, order_by=told.order_by)
    name, equals, value = told.filter.partition(" = ")
    if equals and value.isupper() and " " not in value:
        accept(listing, filter=f"{name} = {value.lower()}")


@pytest.mark.parametrize("method", LISTS)
def test_every_list_with_names_filters_by_name(method: str) -> None:
    _, listing, name = LISTS[method]
    if name:
        accept(listing, filter=f'name = "{name}"')


@pytest.mark.parametrize("method", LISTS)
def test_the_help_of_a_list_shows_its_own_examples(method: str, tmp_path: Path) -> None:
    told, _, _ = LISTS[method]
    words = [*COMMANDS[method].format(folder=tmp_path).split(), "--help"]
    shown = " ".join(CliRunner().invoke(app, words).output.split())
    for text in (told.filter, told.order_by, ", ".join(told.sortable)):
        assert text in shown


@pytest.mark.parametrize("command", OPERATORS)
def test_lists_of_operators_have_the_same_options(command: str) -> None:
    told, listing = OPERATORS[command]
    sortable = {name for name, declared in listing.fields.items() if declared.sortable}
    assert (set(told.sortable), set(told.others)) == (sortable, set(listing.fields) - sortable)
    accept(listing, filter=told.filter, order_by=told.order_by)
    shown = " ".join(CliRunner().invoke(app, [*command.split(), "--help"]).output.split())
    assert all(text in shown for text in (told.filter, told.order_by, "--limit"))
