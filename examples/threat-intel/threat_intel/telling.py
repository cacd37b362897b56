"""What every step has at hand."""

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
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from openledger_cli.connection import SERVICES, Connections
from openledger_cli.up.health import serving
from servicekit.errors import Unavailable
from threat_intel.figures import Figures
from threat_intel.interruption import Interruption
from threat_intel.journal import Journal
from threat_intel.people import Wallet, wallet_of
from threat_intel.platform import Platform
from threat_intel.scale import Scale

DATANET = "datanets/threat-intel"
MODEL = "models/threat-intel"


@dataclass
class Telling:
    """One telling of the story: where it is written, how large it is, how to reach the platform."""

    folder: Path
    scale: Scale
    journal: Journal
    platform: Platform
    interruption: Interruption = field(default_factory=Interruption)
    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=False))
    _open: dict[str, Connections] = field(default_factory=dict)

    def as_(self, person: tuple[str, tuple[str, ...]]) -> Connections:
        """The platform's doors for one person."""
        name, roles = person
        if name not in self._open:
            self._open[name] = Connections(
                self.platform.state_dir, principal=name, roles=roles, deadline_s=120
            )
        return self._open[name]

    def wallet(self, contributor: str) -> Wallet:
        """A contributor's chain account."""
        return wallet_of(self.folder / "wallets", contributor)

    def result(self, step: str) -> dict[str, Any]:
        """The facts that an earlier step left."""
        facts: dict[str, Any] = self.journal.results[step]["facts"]
        return facts

    def say(self, text: str) -> None:
        """A line of the story. Raises KeyboardInterrupt when the story is to stop."""
        self.interruption.check()
        self.console.print(f"  {text}", soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int | None) -> Iterator[Bar]:
        """A progress bar with ETA; on something that is not a terminal, a line now and then."""
        with Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        ) as progress:
            yield Bar(self, progress, title, total)

    def reconnect(self) -> None:
        """Forgets all channels and waits until every service answers. Raises Unavailable after a minute."""
        self.close()
        self._open.clear()
        addresses = [self.platform.doors[service] for service in SERVICES]
        for _ in range(120):
            if all(serving(address) for address in addresses):
                return
            time.sleep(0.5)  # a poll of public health doors
        raise Unavailable("PLATFORM_DOWN", "a service does not come back; see the platform's log")

    def close(self) -> None:
        """Closes all channels."""
        for connections in self._open.values():
            connections.close()


class Bar:
    """A progress bar, and its stand-in for logs: a line at every tenth."""

    def __init__(self, telling: Telling, progress: Progress, title: str, total: int | None) -> None:
        self._telling, self._progress, self._title = telling, progress, title
        self._task = progress.add_task(title, total=total, detail="")
        self._said = -1

    def at(self, done: int, total: int | None = None, detail: str = "", title: str = "") -> None:
        """Moves to `done` of `total`. Raises KeyboardInterrupt when the story is to stop."""
        self._telling.interruption.check()
        self._progress.update(self._task, completed=done, detail=detail, description=title or self._title)
        if total:
            self._progress.update(self._task, total=total)
        if self._telling.console.is_terminal or not total:
            return
        tenth = (title, done * 10 // total)
        if hash(tenth) != self._said:
            self._said = hash(tenth)
            self._telling.say(f"{title or self._title} {done}/{total} {detail}")


@dataclass
class Outcome:
    """What a step leaves: figures for story.json, facts for the steps after it."""

    figures: Figures = field(default_factory=Figures)
    facts: dict[str, Any] = field(default_factory=dict)
