"""The result of one iteration: for each link, how many things passed it, and what is wrong with which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from servicekit.errors import StartupError


class Unreachable(StartupError):
    """A source cannot be read now: a service, the event log, the chain. A later attempt may succeed."""


class Fault(Enum):
    """What can be wrong with a thing at a link."""

    LOST = "lost"
    """It, or a part of it, is missing or damaged."""
    DOUBLED = "doubled"
    """It exists more than once, or counts for more than it is."""
    WAITING = "waiting"
    """It has not arrived yet. That is normal while services run, and a loss if it never arrives."""
    INVALID = "invalid"
    """It cannot be read, so nothing else is known about it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing with a fault at one link."""

    link: str
    fault: Fault
    thing: str
    why: str = field(compare=False)
    """For people. Two iterations that find the same fault may word it differently."""


@dataclass
class Book:
    """The result of one iteration."""

    checked: dict[str, int] = field(default_factory=dict)
    """How many things were checked, by link."""
    findings: list[Finding] = field(default_factory=list)
    state_times: dict[str, str] = field(default_factory=dict)
    """When each service's facts were read, RFC 3339, by service."""
    chain_checked: bool = False
    """Whether the contracts were read."""

    def saw(self, link: str, count: int) -> None:
        """Adds to the number of things that were checked at a link."""
        self.checked[link] = self.checked.get(link, 0) + count

    def lost(self, link: str, thing: str, why: str) -> None:
        """Adds a lost thing."""
        self.findings.append(Finding(link=link, fault=Fault.LOST, thing=thing, why=why))

    def doubled(self, link: str, thing: str, why: str) -> None:
        """Adds a thing that exists twice."""
        self.findings.append(Finding(link=link, fault=Fault.DOUBLED, thing=thing, why=why))

    def invalid(self, link: str, thing: str, why: str) -> None:
        """Adds a thing that cannot be read."""
        self.findings.append(Finding(link=link, fault=Fault.INVALID, thing=thing, why=why))

    def waiting(self, link: str, thing: str, why: str) -> None:
        """Adds a thing that has not arrived yet."""
        self.findings.append(Finding(link=link, fault=Fault.WAITING, thing=thing, why=why))

    def once(self, link: str, thing: str, found: Iterable[object], what: str) -> None:
        """Checks that there is exactly one `what` of a thing: none is lost, several are doubled."""
        count = len(list(found))
        if count == 0:
            self.lost(link, thing, f"no {what}")
        elif count > 1:
            self.doubled(link, thing, f"{count} {what}s")

    def same(self, link: str, thing: str, actual: int, expected: int, what: str) -> None:
        """Checks a number: less than expected is lost, more is doubled."""
        if actual != expected:
            add = self.lost if actual < expected else self.doubled
            add(link, thing, f"{what}: {actual}, expected {expected}")

    def count(self, fault: Fault, link: str | None = None) -> int:
        """Returns how many things have a fault, at one link or in total."""
        things = {(f.link, f.thing) for f in self.findings if f.fault is fault and link in (None, f.link)}
        return len(things)

    def links(self) -> list[str]:
        """Returns every link, in the order in which they were checked."""
        return list(dict.fromkeys([*self.checked, *(finding.link for finding in self.findings)]))
