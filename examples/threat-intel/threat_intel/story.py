"""The demo's steps in order; each is finished once."""

from __future__ import annotations

import time
from collections.abc import Callable

from openledger_client.errors import Unavailable
from threat_intel.figures import write_story
from threat_intel.report import write_report
from threat_intel.run import Outcome, Run
from threat_intel.steps import answer, attribute, contribute, evaluate, finetune, settle, verify

STEPS: list[tuple[str, str, Callable[[Run], Outcome]]] = [
    (
        "contribute",
        "Contribute: vendors stream what they know; one contributor copies, one sends bad records",
        contribute.execute,
    ),
    ("finetune", "Fine-tune twice: carelessly, and as the platform suggests", finetune.execute),
    ("evaluate", "Evaluate: what was gained, what was forgotten, and the gate", evaluate.execute),
    ("answer", "Answer: held-out questions, base and adapter in the same batches", answer.execute),
    ("attribute", "Attribute: who shaped each answer, and how surely", attribute.execute),
    ("settle", "Settle: batches, proofs and rewards on the chain", settle.execute),
    ("verify", "Verify: from a bundle and an RPC address alone", verify.execute),
]


ATTEMPTS = 5
"""How often a step is started when a service is unreachable: each attempt does only what is not done yet."""


def execute_all(run: Run) -> None:
    """Executes every step that is not finished, then writes story.json and report.html."""
    for number, (name, title, execute) in enumerate(STEPS, start=1):
        run.interruption.check()
        if run.journal.finished(name):
            run.console.print(f"[bold]{number}. {title}[/bold] [dim](finished before)[/dim]", soft_wrap=True)
            continue
        run.console.print(f"\n[bold]{number}. {title}[/bold]", soft_wrap=True)
        begun = time.monotonic()
        outcome = _completed(run, execute)
        wall_s = round(time.monotonic() - begun, 1)
        run.journal.finish(
            name, {"wall_s": wall_s, "figures": outcome.figures.as_json(), "facts": outcome.facts}
        )
        run.say(f"[dim]{wall_s:.0f} s[/dim]")
    journal = run.journal
    write_story(run.folder / "story.json", journal.run, journal.scale, journal.results)
    write_report(run.folder / "report.html", journal)


def _completed(run: Run, execute: Callable[[Run], Outcome]) -> Outcome:
    """Executes a step; when a service is unreachable, waits for it and starts the step again."""
    for left in reversed(range(ATTEMPTS)):
        try:
            return execute(run)
        except Unavailable as error:
            if not left:
                raise
            run.say(
                f"[yellow]a service is unreachable ({error}): the step starts again when all answer[/yellow]"
            )
            run.reconnect()
    raise AssertionError("unreachable: the last attempt returns or raises")
