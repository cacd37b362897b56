"""What tests of being seen share."""

from __future__ import annotations
