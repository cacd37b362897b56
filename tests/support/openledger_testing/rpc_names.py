"""Names and digests that the commands of tests use."""

from __future__ import annotations

import hashlib

EMPTY = "sha256:" + hashlib.sha256(b"").hexdigest()
"""Of no bytes."""
REPORT = "sha256:" + "0" * 64
ULID = "01J00000000000000000000000"
DATANET, RECORD = "datanets/d", "datanets/d/records/" + "0" * 64
OPERATION = f"{DATANET}/sealOperations/{ULID}"
RUN, VERSION = f"trainingRuns/{ULID}", "models/m/versions/1"
OVERRIDE = f"promotionOverrides/{ULID}"
