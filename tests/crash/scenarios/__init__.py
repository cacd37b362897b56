"""How each service lives while it is killed; see `harness`."""
