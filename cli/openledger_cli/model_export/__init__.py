"""`openledger model export`: a model version as a folder that needs nothing of this platform.

- `folder`: the folder appears whole or not at all
- `files`: the version's objects, each checked against its digest
- `card`: the model card, whose every fact comes from the platform's records
- `merge`: the adapter inside the base's weights, and how far its answers may then differ
- `run`: one export, from its first byte to the rename
"""
