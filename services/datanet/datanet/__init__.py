"""Contributions to reviewed, deduplicated, sealed snapshots."""
