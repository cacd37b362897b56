"""keccak-256 by the fast backend.

eth_hash chooses pycryptodome whenever some other package has brought it, and that one is 7 times slower
(170k against 1.1M hashes a second on one core), so the backend is named here.
"""

from __future__ import annotations

from eth_hash.backends.pysha3 import keccak256

__all__ = ["keccak256"]
