"""What a look finds: a line for each link of a way, with how many things passed it and what is wrong with which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from servicekit.errors import StartupError


class Away(StartupError):
    """Something cannot be read now: a database, the event log, the chain. It may be a moment later."""


class Fault(Enum):
    """What can be wrong with a thing at a link."""

    LOST = "lost"
    """It, or a part of it, is not where it must be."""
    DOUBLED = "doubled"
    """It stands where it must be more than once, or counts for more than it is."""
    WAITING = "waiting"
    """It is on its way: right while services run, and lost if they never bring it further."""


@dataclass(frozen=True)
class Finding:
    """One thing with a fault at one link."""

    link: str
    fault: Fault
    thing: str
    why: str = field(compare=False)
    """For people; two looks that find the same fault may word it differently."""


@dataclass
class Book:
    """One look."""

    seen: dict[str, int] = field(default_factory=dict)
    """Things by link, in the order of the way."""
    findings: list[Finding] = field(default_factory=list)

    def saw(self, link: str, count: int) -> None:
        """So many things were judged at a link."""
        self.seen[link] = self.seen.get(link, 0) + count

    def lost(self, link: str, thing: str, why: str) -> None:
        """Notes a lost thing."""
        self.findings.append(Finding(link, Fault.LOST, thing, why))

    def doubled(self, link: str, thing: str, why: str) -> None:
        """Notes a thing that stands twice."""
        self.findings.append(Finding(link, Fault.DOUBLED, thing, why))

    def waiting(self, link: str, thing: str, why: str) -> None:
        """Notes a thing that is on its way."""
        self.findings.append(Finding(link, Fault.WAITING, thing, why))

    def once(self, link: str, thing: str, found: Iterable[object], what: str) -> None:
        """Notes a thing of which there should be exactly one `what`: none is lost, several are doubled."""
        count = len(list(found))
        if count == 0:
            self.lost(link, thing, f"no {what}")
        elif count > 1:
            self.doubled(link, thing, f"{count} {what}s")

    def same(self, link: str, thing: str, is_: int, should_be: int, what: str) -> None:
        """Notes a number that is not what it should be: less is lost, more is doubled."""
        if is_ != should_be:
            note = self.lost if is_ < should_be else self.doubled
            note(link, thing, f"{what}: {is_}, should be {should_be}")

    def count(self, fault: Fault, link: str | None = None) -> int:
        """How many things have a fault, at one link or at all."""
        things = {(f.link, f.thing) for f in self.findings if f.fault is fault and link in (None, f.link)}
        return len(things)

    def links(self) -> list[str]:
        """Every link, in the order of the way."""
        return list(dict.fromkeys([*self.seen, *(finding.link for finding in self.findings)]))
