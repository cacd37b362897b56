"""What operators run: `openledger up`, doctor, reconcile, dead letters, garbage collection.

Services are reached by RPC only, never through their tables or their code. What an operator does not need a service for uses
servicekit directly: the event log (dead letters) and the object store (garbage collection).
"""
