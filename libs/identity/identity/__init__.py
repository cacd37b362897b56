"""Names of everything recorded: canonical JSON, digests, Merkle trees, leaf encodings."""
