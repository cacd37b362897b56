"""Who contributes what in the story. Everything here is the same at every call with the same arguments."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from functools import lru_cache
from itertools import zip_longest

from threat_intel.attack import Procedure, procedures
from threat_intel.mischief import careless_records, copier_records

__all__ = [
    "TACTICS",
    "careless_records",
    "contributors",
    "copier_records",
    "encode",
    "procedures_of",
    "records_for",
]

TACTICS = (
    "reconnaissance",
    "resource-development",
    "initial-access",
    "execution",
    "persistence",
    "privilege-escalation",
    "defense-evasion",
    "credential-access",
    "discovery",
    "lateral-movement",
    "collection",
    "command-and-control",
    "exfiltration",
    "impact",
)
"""The labels, in ATT&CK's order."""
