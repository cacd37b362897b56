"""Statistics of comparing a tuned model with its base on the same items, the gate, and recomputable reports.

Pure functions over numpy arrays: no model, no service, no network. The trainer writes reports with it and the
offline verifier recomputes them with it, so both rest on the same formulas.
"""

from __future__ import annotations

VERSION = "2"
"""Version of the statistics: raised whenever a formula changes, because a report's figures depend on it."""
