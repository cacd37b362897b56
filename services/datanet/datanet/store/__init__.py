"""Tables and queries: domain objects in and out, rows between."""

from datanet.store import contributors, datanets, records, snapshots
from datanet.store.tables import Base

__all__ = ["Base", "contributors", "datanets", "records", "snapshots"]
