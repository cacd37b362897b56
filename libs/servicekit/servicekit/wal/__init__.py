"""A write-ahead log: a service without a database on its hot path passes events on without waiting.

The hot path calls `Wal.append(pack(to_record(event)))` and continues. A `WalSender` thread sends the appended records to the
event log and stores its position durably.

Durability: an append writes to a file, so it survives a kill of the process at any later instruction. It survives a crash of the
machine after a background thread has fsynced it, at most `fsync_every_s` later. A power failure can lose the records of that
time, which is the price of not waiting. After a restart the sender continues at its last stored position, and may send some
records again with the same `ce_id`.

Size: at most `max_bytes` on disk. When the event log is down for so long that the log is full, `append` raises `WalFull`. Records
are never dropped, because contributors are paid for each of these answers. The service then refuses new work
(RESOURCE_EXHAUSTED) instead of doing work that it cannot record.
"""

from servicekit.wal.files import Position, Wal, WalFull, WalInUse, records_in
from servicekit.wal.sender import WalSender, pack, unpack

__all__ = ["Position", "Wal", "WalFull", "WalInUse", "WalSender", "pack", "records_in", "unpack"]
