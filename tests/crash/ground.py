"""Which scenario comes by which part of the source, and the few durable steps that stand apart, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable

import durable

LIVED = {
    "datanet": (
        "datanet.",
        "servicekit.server.",
        "servicekit.address:",
        "servicekit.auth.",
        "servicekit.database.",
        "servicekit.references:",
    ),
    "delivery": (
        "servicekit._delivery:",
        "servicekit.consumer:",
        "servicekit.dead_letters:",
        "servicekit.outbox:",
        "servicekit.wal.",
    ),
    "trainer": ("trainer.",),
    "training_job": (
        "trainer.training.",
        "trainer.evaluation.",
        "trainer.progress:",
        "trainer.jobs.evaluate:",
    ),
    "inference": ("inference.", "modelkit.base_model:link_files"),
    "attribution": ("attribution.",),
    "relay": ("chain_relay.",),
}
"""By scenario, prefixes of the functions whose points it comes by. A function belongs to the longest prefix that fits it."""

WITHOUT_POINT = {
    "servicekit.auth.issuer:DevelopmentIssuer.ensure_keys open": "a lock file: nothing is in it, the kernel lets it go",
    "servicekit.crash:Plan.__init__ open": "the record of the points themselves",
    "servicekit.database.engine:_turn_wal_on open": "a lock file",
    "servicekit.database.migrate:_in_turn open": "a lock file",
    "servicekit.eventlog._group:evict_dead unlink": "a dead member's pipe: whoever comes next removes what is left",
    "servicekit.eventlog._wake:Waiter.close unlink": "one's own pipe: who dies before is evicted, and the pipe with him",
    "servicekit.files:_remove_abandoned unlink": "a dead writer's temporary file; found again if it stays",
    "servicekit.migrations_env:write_revision begin": "a developer's tool, on a scratch database",
    "servicekit.migrations_env:write_revision write_text": "a developer's tool",
    "servicekit.objects:ObjectStore.local_path unlink": "a corrupt copy in the cache of a bucket: read again, it is found again",
    "servicekit._object_folder:Folder.temporary fdopen": "a temporary file, whose name nobody reads",
    "servicekit._object_folder:Folder.temporary unlink": "a temporary file",
    "servicekit._object_folder:Folder.remove_leftovers unlink": "a dead process's temporary file; found again if it stays",
    "servicekit._object_folder:Folder._sweep_lock open": "a lock file",
    "servicekit.outbox:_leading_postgresql begin": "an advisory lock: gone with its connection, nothing is written",
    "servicekit.outbox:_leading_sqlite open": "a lock file",
    "servicekit.wal.files:Wal.__init__ open": "a lock file",
    "servicekit.wal.files:Wal._write ftruncate": "takes back half a frame; who dies before mends it when he is back",
    "modelkit.gguf_import:_convert save_pretrained": "a temporary folder",
    "modelkit.tiny:create_tiny save_pretrained": "a temporary folder",
    "trainer.jobs.fate:sole_user open": "a lock file",
    "trainer.progress:ProgressWriter.__init__ open": "opens for appending; what is appended has its points",
    "attribution.index:AttributionIndex.save open": "a temporary folder",
    "attribution.index:AttributionIndex.save unlink": "a temporary folder",
}
"""Raw durable steps without a crash point: `function call`, and why a kill there is nothing new."""

NOT_LIVED = {
    "servicekit.consumer:_Membership._commit_one_by_one": "after a lost partition; each is a commit like `_commit`'s",
    "servicekit.consumer:ConsumerRunner._prune_inbox": "once an hour, one transaction that deletes; done again an hour later",
    "servicekit.request_ids:pruning.<locals>.run": "now and then, one transaction that deletes; done again later",
    "modelkit.adapter:fetch": "removes a folder that is no adapter; it is asked for again and found wrong again",
    "modelkit.adapter:publish": "objects by digest: written again they are the same (lived by `training_job`)",
    "modelkit.base_model:publish": "objects by digest",
    "modelkit.gguf_import:import_gguf": "15 s for a real model; a note written whole after objects by digest",
    "trainer.base_models:import_base_model": "a process of its own: objects by digest, then one file written whole",
    "trainer.evaluation.items:export": "a tool; one file written whole",
    "trainer.ray_head:_ensure_token": "one link(2), which is there or not",
    "trainer.jobs.train:main": "the reason of a failure, written whole",
    "trainer.jobs.evaluate:main": "the reason of a failure, written whole",
    "attribution.worker:ScoringWorker._postpone": "a failed attempt's later time, one transaction; the answer stays pending",
}
"""Functions with crash points that no scenario comes by, and why that is enough."""


def scenario_of(function: str) -> str | None:
    """The scenario that has to come by a function's points."""
    fits = [
        (len(prefix), name)
        for name, prefixes in LIVED.items()
        for prefix in prefixes
        if function.startswith(prefix)
    ]
    return max(fits)[1] if fits else None


def missed(scenario: str, points: Iterable[str]) -> set[str]:
    """Functions with crash points that a scenario has to come by, and does not with these."""
    wanted = {place.function for place in durable.places() if scenario_of(place.function) == scenario}
    return wanted - set(NOT_LIVED) - {point.partition(" ")[0] for point in points}
