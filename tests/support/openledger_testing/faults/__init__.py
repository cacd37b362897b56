"""Faults that strike a running platform, the load it runs under, and the checks afterwards."""
