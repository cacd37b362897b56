"""Tables and queries: domain objects in and out, rows between."""

from datanet.store import contributors, datanets, operations, records, snapshots
from datanet.store.tables import Base

__all__ = ["Base", "contributors", "datanets", "operations", "records", "snapshots"]
