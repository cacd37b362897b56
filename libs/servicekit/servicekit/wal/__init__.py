"""A write-ahead log: how a service without a database on its hot path hands over events without waiting for
anyone.

The hot path calls `Wal.append(pack(to_record(event)))` and goes on. A `WalSender` thread moves what was
appended to the event log and remembers, durably, how far it has come.

What survives what. An append is a write to a file, so it survives the death of the process at any later
instruction. It survives the death of the machine once a background thread has fsynced it, at most
`fsync_every_s` later: that much can be lost with the power, and this is the price of not waiting. After a
restart the sender goes on from the position it last saved and may send some records again, with the `ce_id`
they had.

Bounded: at most `max_bytes` on disk. When the event log is away for so long that it is full, `append`
raises `WalFull` and keeps what it has: records are never dropped to make room, for each is an answer
somebody is to be paid for. The service then refuses new work (RESOURCE_EXHAUSTED) rather than work that
can't be recorded.
"""

from servicekit.wal.files import Position, Wal, WalFull, WalInUse
from servicekit.wal.sender import WalSender, pack, unpack

__all__ = ["Position", "Wal", "WalFull", "WalInUse", "WalSender", "pack", "unpack"]
