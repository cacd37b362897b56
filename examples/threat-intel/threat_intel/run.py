"""What every step of the demo needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from openledger_client import Addresses, Client
from openledger_client.calls import Policy
from openledger_client.errors import Unavailable
from openledger_client.services import ALL
from servicekit.auth.development_token import DevelopmentToken
from threat_intel.figures import Figures
from threat_intel.interruption import Interruption
from threat_intel.journal import Journal
from threat_intel.people import Person, Wallet, wallet_of
from threat_intel.platform import Platform
from threat_intel.scale import Scale

DATANET = "datanets/threat-intel"
MODEL = "models/threat-intel"
DEADLINE_S = 120.0
LINE_EVERY_S = 10.0
"""Seconds between two progress lines where the output is no terminal."""


@dataclass(kw_only=True)
class Run:
    """One demo run: its folder, its scale, its journal, and how to reach the platform."""

    folder: Path
    scale: Scale
    journal: Journal
    platform: Platform
    interruption: Interruption = field(default_factory=Interruption)
    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=False))
    _open: dict[str, Client] = field(default_factory=dict)

    def token(self, person: Person) -> DevelopmentToken:
        """Returns the token of one person."""
        name, roles = person
        return DevelopmentToken(self.platform.state_dir, name, roles)

    def as_(self, person: Person) -> Client:
        """Returns a client that calls as one person."""
        name = person[0]
        if name not in self._open:
            self._open[name] = Client(
                Addresses(state_dir=self.platform.state_dir),
                token=self.token(person),
                policy=Policy(deadline_s=DEADLINE_S),
            )
        return self._open[name]

    def wallet(self, contributor: str) -> Wallet:
        """Returns a contributor's chain account."""
        return wallet_of(self.folder / "wallets", contributor)

    def result(self, step: str) -> dict[str, Any]:
        """Returns the facts that an earlier step left."""
        facts: dict[str, Any] = self.journal.results[step]["facts"]
        return facts

    def say(self, text: str) -> None:
        """Prints a line. Raises KeyboardInterrupt after a request to stop."""
        self.interruption.check()
        self.console.print(f"  {text}", soft_wrap=True)

    @contextmanager
    def progress(self, title: str, total: int | None) -> Iterator[Progress]:
        """Yields a progress bar with ETA; where the output is no terminal, it prints a line every few seconds."""
        with Bar(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        ) as bar:
            yield Progress(self, bar, title, total)

    def reconnect(self) -> None:
        """Closes all channels and waits until every service answers. Raises Unavailable after a minute."""
        self.close()
        with Client(Addresses(state_dir=self.platform.state_dir)) as probe:
            for _ in range(120):
                if all(probe.is_serving(service) for service in ALL):
                    return
                time.sleep(
                    0.5
                )  # health endpoints can only be polled here: the process itself may be restarting
                probe.close()  # a restarted service may listen elsewhere
        raise Unavailable("a service does not come back; see the platform's log", reason="PLATFORM_DOWN")

    def close(self) -> None:
        """Closes all channels."""
        while self._open:
            self._open.popitem()[1].close()


class Progress:
    """A progress bar, or lines with ETA in a log."""

    def __init__(self, run: Run, bar: Bar, title: str, total: int | None) -> None:
        self._run, self._bar, self._title = run, bar, title
        self._task = bar.add_task(title, total=total, detail="")
        self._shown = ("", float("-inf"))
        self._complete = (
            False  # the last line of this title was printed: a service may repeat its last update
        )
        self._began = ("", time.monotonic(), 0)

    def at(self, done: int, total: int | None = None, detail: str = "", title: str = "") -> None:
        """Moves to `done` of `total`. Raises KeyboardInterrupt after a request to stop."""
        self._run.interruption.check()
        title = title or self._title
        self._bar.update(self._task, completed=done, detail=detail, description=title)
        if total:
            self._bar.update(self._task, total=total)
        if self._run.console.is_terminal or not total:
            return
        now = time.monotonic()
        if title != self._began[0]:
            self._began = (title, now, done)
        ends = done >= total and not self._complete
        if title != self._shown[0] or now - self._shown[1] >= LINE_EVERY_S or ends:
            self._shown, self._complete = (title, now), done >= total
            self._run.say(
                " ".join(
                    part for part in (title, f"{done}/{total}", self._left(now, done, total), detail) if part
                )
            )

    def _left(self, now: float, done: int, total: int) -> str:
        _, began, first = self._began
        if done <= first or done >= total:
            return ""
        return f"about {(now - began) / (done - first) * (total - done):.0f} s left"


@dataclass
class Outcome:
    """What a step leaves: figures for story.json, facts for later steps."""

    figures: Figures = field(default_factory=Figures)
    facts: dict[str, Any] = field(default_factory=dict)
