"""The story: its steps in order, each told once."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc

from servicekit.errors import Unavailable, from_rpc_error
from threat_intel.figures import write_story
from threat_intel.report import write_report
from threat_intel.steps import answer, attribute, contribute, evaluate, finetune, settle, verify
from threat_intel.telling import Outcome, Telling

STEPS: list[tuple[str, str, Callable[[Telling], Outcome]]] = [
    (
        "contribute",
        "Contribute: vendors stream what they know, a copier and a careless one among them",
        contribute.run,
    ),
    ("finetune", "Fine-tune twice: carelessly, and as the platform suggests", finetune.run),
    ("evaluate", "Evaluate: what was gained and what was forgotten, and the gate", evaluate.run),
    ("answer", "Answer: held-out questions, base and adapter in the same batches", answer.run),
    ("attribute", "Attribute: who shaped each answer, how surely", attribute.run),
    ("settle", "Settle: batches, proofs, rewards on the chain", settle.run),
    ("verify", "Verify: from a bundle and an RPC address alone", verify.run),
]


TRIES = 5
"""How often a step is told when a service goes away under it: every step does again what is undone, and nothing twice."""


def tell(telling: Telling) -> None:
    """Tells every step that is not told yet, then writes story.json and report.html."""
    for number, (name, title, run) in enumerate(STEPS, start=1):
        telling.interruption.check()
        if telling.journal.finished(name):
            telling.console.print(f"[bold]{number}. {title}[/bold] [dim](told before)[/dim]", soft_wrap=True)
            continue
        telling.console.print(f"\n[bold]{number}. {title}[/bold]", soft_wrap=True)
        begun = time.monotonic()
        outcome = _told(telling, run)
        wall_s = round(time.monotonic() - begun, 1)
        telling.journal.finish(
            name, {"wall_s": wall_s, "figures": outcome.figures.as_json(), "facts": outcome.facts}
        )
        telling.say(f"[dim]{wall_s:.0f} s[/dim]")
    journal = telling.journal
    write_story(telling.folder / "story.json", journal.telling, journal.scale, journal.results)
    write_report(telling.folder / "report.html", journal)


def _told(telling: Telling, run: Callable[[Telling], Outcome]) -> Outcome:
    """Runs a step; when a service went away, waits for it and tells the step again."""
    for left in reversed(range(TRIES)):
        try:
            return run(telling)
        except grpc.RpcError as error:
            problem = from_rpc_error(error)
            if not isinstance(problem, Unavailable) or not left:
                raise
            telling.say(f"[yellow]a service went away ({problem}): told again once all answer[/yellow]")
            telling.reconnect()
    raise AssertionError("unreachable: the last try returns or raises")
