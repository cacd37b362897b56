"""Lists of all APIs: pages, filters (AIP-160), orders (AIP-132) and totals, declared once per list.

A service declares which fields its callers may filter and sort by, and asks for a page:

    RUNS = Listing(
        fields={"state": Field(Run.state, choices({"RUNNING": 1, "DONE": 2})), "create_time": Field(Run.create_time, TIME)},
        key=[Run.id.desc()],
    )
    page = RUNS.page(session, select(Run).where(Run.model == model), request, bytes_of=size_in_response)

What every list promises:

- `filter` is AIP-160: `state = RUNNING AND (create_time > "2026-01-01T00:00:00Z" OR -labels:*)`. OR binds tighter than AND.
- `order_by` is "field", "field desc" or several of them; the list's key breaks ties. Absent values come first; with desc, last.
- `next_page_token` is opaque. It continues after the last item, even if items were added or removed meanwhile. It is valid only
  for the same request: with another filter, order or parent it is refused.
- `total_size` is the number of items that matched the filter when the first page was read.
- A page ends before its items exceed 3 MB together: every list says how large an item is, so no stranger's items end it.
- Every error is INVALID_ARGUMENT. It names `filter`, `order_by`, `page_token` or `page_size`, and says what would be right.
"""

from servicekit.lists.kinds import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    TEXT,
    TIME,
    Kind,
    choices,
    enum,
    numbered,
    resource,
)
from servicekit.lists.listing import Field, Listing, Page
from servicekit.lists.query import ListRequest, Query

__all__ = [
    "BOOLEAN",
    "INTEGER",
    "NUMBER",
    "TEXT",
    "TIME",
    "Field",
    "Kind",
    "ListRequest",
    "Listing",
    "Page",
    "Query",
    "choices",
    "enum",
    "numbered",
    "resource",
]
