"""How each service is run while it is killed; see `harness`."""
