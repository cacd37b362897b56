"""kill -9 of each service once, in the middle of the step that needs it most, and one Ctrl-C. The supervisor restarts what
was killed; started again, the demo continues; nothing may be lost."""

from __future__ import annotations

import pytest

from openledger_ops.reconcile.book import Book
from openledger_ops.reconcile.reconciliation import Sources, iteration
from openledger_testing import demo_process
from openledger_testing.anvil import Anvil
from openledger_testing.audit_rig import AuditRig
from openledger_testing.demo_process import Killed
from openledger_testing.state_copy import State

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.story]
VICTIMS_AFTER_PROMOTION = {"4": "inference", "5": "attribution", "6": "chain_relay"}
"""The service that is killed in each step, once the step shows progress."""


@pytest.fixture(scope="module")
def killed(promoted: Killed, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """The demo continued to its end; a run that was stopped is started again, as a person would."""
    out = demo_process.copy_stopped(promoted.folder, tmp_path_factory.mktemp("killed") / "demo")
    return demo_process.run_while_killing(out, VICTIMS_AFTER_PROMOTION)


@pytest.fixture(scope="module")
def book(killed: Killed, tmp_path_factory: pytest.TempPathFactory) -> Book:
    """Returns a reconciliation of what the demo left behind, with its chain started again."""
    state = State.copied(killed.folder / "state", tmp_path_factory.mktemp("left") / "state")
    saved = state.folder / "chain" / "anvil.json"
    with (
        Anvil("--load-state", str(saved), "--chain-id", "31337", "--no-mining", slots_in_an_epoch=2) as chain,
        AuditRig() as rig,
    ):
        rig.show(state.folder)
        sources = Sources(
            client=rig.client, event_log=state.event_log, rpc=chain.url, contracts=state.contracts
        )
        return iteration(sources)


def test_every_service_was_killed(promoted: Killed, killed: Killed) -> None:
    services = {"datanet", "trainer", "inference", "attribution", "chain_relay"}
    assert sorted([*promoted.programs, *killed.programs]) == sorted({*services, "ray"})


def test_a_stopped_demo_leaves_no_process_and_continues_after_the_last_finished_step(
    promoted: Killed, killed: Killed
) -> None:
    stopped = promoted.runs[-1]
    assert stopped.left == []
    assert "run it again to continue" in stopped.output
    assert killed.runs[0].output.count("(finished before)") == len(promoted.programs)


def test_nothing_is_lost_doubled_or_waiting(book: Book) -> None:
    assert book.findings == []
    assert book.checked["batch on chain"] > 0


def test_every_answer_that_was_given_is_attributed(killed: Killed) -> None:
    answers = [answer["inference"] for answer in killed.steps["answer"]["facts"]["answers"]]
    assert set(killed.steps["attribute"]["facts"]["records"]) == set(answers)


def test_the_bundle_is_still_verified(killed: Killed) -> None:
    assert all(finding["passed"] for finding in killed.steps["verify"]["facts"]["findings"])
