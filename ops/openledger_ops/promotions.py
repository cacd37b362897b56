"""Checks a model's promotion history: nothing changed, nothing removed, nothing added in between."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from identity.digest import sha256_bytes

if TYPE_CHECKING:
    from openledger.trainer.v1 import trainer_pb2 as pb


def broken(history: Sequence[pb.Promotion], served: str, known_hash: str = "") -> str:
    """Returns what is wrong with a whole history, in order; "" when nothing is.

    `served` is the version that the model serves, "" for none; `known_hash` is one that the caller kept earlier.
    """
    previous, version = "", ""
    for number, entry in enumerate(history, start=1):
        content = json.loads(entry.canonical_json)
        hash_ = sha256_bytes(entry.canonical_json)
        if entry.hash != hash_:
            return f"{entry.name}: its content has the hash {hash_}, not {entry.hash}"
        if content["number"] != number or entry.name != f"{content['model']}/promotions/{number}":
            return f"{entry.name}: entry {content['number']} of {content['model']} in place of entry {number}"
        if (content["previous"], entry.previous_hash) != (previous, previous):
            return f"{entry.name}: follows {content['previous'] or 'nothing'}, the entry before is {previous or 'missing'}"
        if (content["version"], content["report"]) != (entry.model_version, entry.report_digest):
            return f"{entry.name}: its content says {content['version']}, {content['report']}"
        # Entries that were taken over from the versions' own histories do not know of versions retired by hand.
        if content["retired"] != version and content["kind"] != "taken_over":
            return (
                f"{entry.name}: retires {content['retired'] or 'nothing'}, {version or 'nothing'} was served"
            )
        previous, version = hash_, content["version"]
    if version != served:
        return f"the last entry serves {version or 'nothing'}, the model serves {served or 'nothing'}"
    if known_hash and known_hash not in {entry.hash for entry in history}:
        return f"no entry has the hash {known_hash}: the history was replaced"
    return ""
