"""Progress of long work: a bar with ETA on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.markup import escape

from openledger_cli.console import console, say
from openledger_cli.context import session
from openledger_cli.output import duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

LINE_EVERY_S = 5.0
"""Seconds between two lines where the output is no terminal."""


@dataclass
class Progress:
    """Where a piece of work stands. `show` prints a line; `bar`, on a terminal, is drawn instead."""

    title: str
    show: Callable[[str], None]
    bar: Bar | None = None
    clock: Callable[[], float] = time.monotonic
    _stage: str = ""
    _stage_began: tuple[float, int] = (0.0, 0)
    _shown_at: float = field(default=float("-inf"))
    _complete: bool = False
    """Whether the line of the finished stage was printed: a service may repeat its last update."""
    _task: TaskID | None = None

    def at(
        self, done: int, total: int, *, unit: str = "", stage: str = "", eta_s: float = 0.0, detail: str = ""
    ) -> None:
        """Moves to `done` of `total` (0: unknown), counted in `unit`, singular or plural.

        `eta_s` is the service's estimate of the time left; 0 takes the rate of this stage.
        """
        now = self.clock()
        stage = stage or self.title
        if unit and not unit.endswith("s"):
            unit += "s"
        if stage != self._stage:
            self._stage, self._stage_began, self._shown_at = stage, (now, done), float("-inf")
            self._complete = False
        parts = [
            f"{done:,}/{total:,} {unit}".strip() if total else f"{done:,} {unit}".strip() if done else ""
        ]
        left_s = eta_s or self._left_s(now, done, total)
        parts += [f"{duration(left_s)} left" if left_s >= 1 else "", detail]
        line = ", ".join(part for part in parts if part)
        if self.bar is not None:
            self._draw(self.bar, done, total, line)
        elif now - self._shown_at >= LINE_EVERY_S or (total and done >= total and not self._complete):
            self._shown_at, self._complete = now, bool(total and done >= total)
            self.show(f"{stage} {line}".rstrip())

    def _left_s(self, now: float, done: int, total: int) -> float:
        began, first = self._stage_began
        if done <= first or total <= done:
            return 0.0
        return (now - began) / (done - first) * (total - done)

    def _draw(self, bar: Bar, done: int, total: int, line: str) -> None:
        if self._task is None:
            self._task = bar.add_task(self._stage, total=None, line="")
        bar.update(
            self._task,
            description=escape(self._stage),
            completed=done,
            total=total or None,
            line=escape(line),
        )


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Yields the progress of one piece of work. Programs that read JSON see nothing of it."""
    if session().as_json:
        yield Progress(title, lambda line: None)
    elif console.is_terminal:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        with Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[line]}"),
            console=console,
        ) as bar:
            yield Progress(title, lambda line: None, bar=bar)
    else:
        yield Progress(title, say)


def rate(per_s: float, unit: str) -> str:
    """`12.5 items/s`, `6 items/min` for slow work; "" for no rate, never "0.0 items/s"."""
    if per_s >= 0.95:
        return f"{per_s:,.1f} {unit}/s"
    if per_s * 60 >= 0.5:
        return f"{per_s * 60:.0f} {unit}/min"
    return ""
