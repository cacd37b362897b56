"""Facts: what a service has recorded, served to operators who reconcile it with the rest of the platform.

Every service has an `audit.py` (as it has `references.py`) with one function, `facts(session)`, that yields what its tables
hold as `openledger.audit.v1.Fact`. The service adds it with `Service.add_facts`. This package adds what all services have in
common: the identity of the database, the running consumers, the inbox and the outbox.

What this package promises:

- All facts of a stream that come from the database are from one snapshot, which blocks no writer. `state_time` is the time
  at which it was taken.
- Facts are read and sent in pages of bounded size, so neither side holds a whole table in memory. A reader that stops
  reading keeps a snapshot open for at most `LONGEST_S`.
- A service serves only its own facts, and does not judge them: a fact is the content of a row.
"""

from servicekit.audit.declared import Declared, Facts
from servicekit.audit.servicer import LONGEST_S, AuditServicer
from servicekit.audit.shared import ROWS, stamp

__all__ = ["LONGEST_S", "ROWS", "AuditServicer", "Declared", "Facts", "stamp"]
