"""Which adapter lies in which slot: pinned while answers use it, evicted least recently used first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from modelkit.weights.lora import BASE_SLOT


@dataclass
class _Resident:
    slot: int
    pins: int = 0


class Residency:
    """Slots 1..slots by adapter digest; the base always lies in slot 0. Used by one thread.

    An adapter is never replaced while it is pinned, and never in place: another digest is another adapter.
    """

    def __init__(self, slots: int) -> None:
        self._free = list(range(slots, BASE_SLOT, -1))
        self._residents: OrderedDict[str, _Resident] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._residents)

    def slot_of(self, digest: str) -> int | None:
        """The adapter's slot; None when it is not resident. "" is the base."""
        if not digest:
            return BASE_SLOT
        resident = self._residents.get(digest)
        return None if resident is None else resident.slot

    def pin(self, digest: str) -> None:
        """Keeps a resident adapter for one more answer."""
        if digest:
            self._residents[digest].pins += 1
            self._residents.move_to_end(digest)

    def unpin(self, digest: str) -> None:
        """Ends one answer's hold."""
        if digest:
            self._residents[digest].pins -= 1

    def place(self, digest: str, evict: bool = True) -> int | None:
        """Makes an adapter resident; None when every slot is pinned (or, with evict=False, taken)."""
        if self._free:
            slot = self._free.pop()
        else:
            idle = next((name for name, resident in self._residents.items() if not resident.pins), None)
            if idle is None or not evict:
                return None
            slot = self._residents.pop(idle).slot
        self._residents[digest] = _Resident(slot)
        return slot

    def remove(self, digest: str) -> None:
        """Gives back the slot of an adapter that turned out not to load."""
        self._free.append(self._residents.pop(digest).slot)
