"""Which scenario covers which part of the source, and the few durable steps that are excluded, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable

from openledger_testing.crash import durable_steps

COVERED = {
    "datanet": (
        "datanet.",
        "servicekit.server.",
        "servicekit.address:",
        "servicekit.auth.",
        "servicekit.database.",
        "servicekit.objects.references:",
    ),
    "delivery": (
        "servicekit.delivery._delivery:",
        "servicekit.delivery.consumer:",
        "servicekit.delivery.dead_letters:",
        "servicekit.delivery.outbox:",
        "servicekit.wal.",
    ),
    "trainer": ("trainer.",),
    "training_job": (
        "finetune.training.",
        "finetune.evaluation.",
        "trainer.contract.progress:",
        "finetune.evaluate:",
    ),
    "inference": ("inference.", "modelkit.base_model:link_files"),
    "attribution": ("attribution.",),
    "relay": ("chain_relay.",),
}
"""By scenario, prefixes of the functions whose points it hits. A function belongs to the longest prefix that fits it."""

WITHOUT_POINT = {
    "servicekit.auth.issuer:DevelopmentIssuer.ensure_keys open": "a lock file: nothing is in it, the kernel lets it go",
    "servicekit.crash:Plan.__init__ open": "the record of the points themselves",
    "servicekit.database.engine:_turn_wal_on open": "a lock file",
    "servicekit.database.migrate:_in_turn open": "a lock file",
    "servicekit.eventlog._group:evict_dead unlink": "a dead member's pipe: the next member removes what is left",
    "servicekit.eventlog._wake:Waiter.close unlink": "its own pipe: a member that dies before is evicted, and its pipe with it",
    "servicekit.files:_remove_abandoned unlink": "a dead writer's temporary file; found again if it stays",
    "servicekit.database.migrations_env:write_revision begin": "a developer's tool, on a scratch database",
    "servicekit.database.migrations_env:write_revision write_text": "a developer's tool",
    "servicekit.private:file open": "an empty file, made or closed to others; the next start does the same",
    "servicekit.private:socket_folder open": "a lock file",
    "servicekit.private:socket_folder write_text": "names a temporary folder; without it the next start makes another",
    "servicekit.database._bounded:set_session commit": "settings of a connection: nothing is written",
    "servicekit.testing.ports:claimed_port open": "a lock file of the tests",
    "servicekit.testing.services:PostgreSql.promote unlink": "a server of the tests",
    "datanet.near_duplicates.sketches:write_sketches open": "a sealing step's files: without the step's mark it runs again",
    "datanet.seal_steps:_mark write_text": "half a mark is none: the step runs again",
    "datanet.spool:write_spool open": "a sealing step's files: without the step's mark it runs again",
    "datanet.spool:write_spool write_text": "a sealing step's files: without the step's mark it runs again",
    "datanet.work_folders:WorkFolders.folder rmtree": "an ended operation's files: the next start removes them",
    "datanet.work_folders:WorkFolders._remove rmtree": "an ended operation's files: the next start removes them",
    "datanet.work_folders:WorkFolders.worker open": "a lock file",
    "servicekit.objects.store:ObjectStore.local_path unlink": "a corrupt copy in a cache: read again, it is found again",
    "servicekit.objects._folder:Folder.temporary fdopen": "a temporary file, whose name is never read",
    "servicekit.objects._folder:Folder.temporary unlink": "a temporary file",
    "servicekit.objects._folder:Folder.remove_leftovers unlink": "a dead process's temporary file; found again if it stays",
    "servicekit.objects._folder:Folder._sweep_lock open": "a lock file",
    "servicekit.delivery.outbox:_leading_postgresql begin": "an advisory lock: gone with its connection, nothing is written",
    "servicekit.delivery.outbox:_leading_sqlite open": "a lock file",
    "servicekit.wal.files:Wal.__init__ open": "a lock file",
    "servicekit.wal.files:Wal._write ftruncate": "takes back half a frame; after a crash, the next start repairs it",
    "modelkit.weights.gguf_import:_convert save_pretrained": "a temporary folder",
    "modelkit.weights.folder_import:import_folder copyfile": "a temporary folder",
    "modelkit.weights.folder_import:import_folder save_file": "a temporary folder",
    "modelkit.weights.tiny:create_tiny save_pretrained": "a temporary folder",
    "finetune.watchdog:exclusive_use open": "a lock file",
    "trainer.contract.progress:ProgressWriter.__init__ open": "opens for appending; what is appended has its points",
    "attribution.index:AttributionIndex.save open": "a temporary folder",
    "attribution.index:AttributionIndex.save unlink": "a temporary folder",
}
"""Raw durable steps without a crash point: `function call`, and why a kill there is nothing new."""

NOT_COVERED = {
    "trainer.promotion:Promotions.rollback": "one commit of what `promote` commits, by the same function",
    "servicekit.delivery.consumer:_Membership._commit_one_by_one": "after a lost partition; each is a commit like `_commit`'s",
    "servicekit.delivery._delivery:Delivery._handle_batch": "one commit for many events; test_delivery_kills.py kills it",
    "servicekit.delivery.consumer:ConsumerRunner._prune_inbox": "an hourly transaction that deletes; repeated an hour later",
    "datanet.seal_runner:SealRunner._record": "how far an operation is, a transaction a second: stale after a kill, and replaced",
    "datanet.seal_runner:SealRunner.step": "a transaction that makes a dead process's operation wait; repeated by the next step",
    "datanet.seal_runner:SealRunner._attempt": "the same when the service stops; otherwise the next start does it",
    "datanet.seal_runner:SealRunner._interrupted": "the same after an outage",
    "datanet.seal_runner:SealRunner._fail": "one transaction; without it the next attempt fails in the same way",
    "modelkit.weights.adapter:fetch": "removes a folder that is no adapter; it is asked for again and found wrong again",
    "modelkit.weights.adapter:publish": "objects by digest: written again they are the same (covered by `training_job`)",
    "modelkit.base_model:publish": "objects by digest",
    "modelkit.weights.gguf_import:import_gguf": "15 s for a real model; a note written whole after objects by digest",
    "finetune.import_base_model:run": "objects by digest, then the result, written whole",
    "finetune.import_base_model:_run_job": "the reason of a failure, written whole",
    "finetune.export_items:export": "a tool; one file written whole",
    "trainer.contract.ray_token:ensure_token": "one link(2), which is there or not",
    "finetune.train:main": "the reason of a failure, written whole",
    "finetune.evaluate:main": "the reason of a failure, written whole",
    "attribution.worker:ScoringWorker._postpone": "a failed attempt's later time, one transaction; the answer stays pending",
}
"""Functions with crash points that no scenario hits, and why that is enough."""


def scenario_of(function: str) -> str | None:
    """Returns the scenario that has to hit a function's points."""
    fits = [
        (len(prefix), name)
        for name, prefixes in COVERED.items()
        for prefix in prefixes
        if function.startswith(prefix)
    ]
    return max(fits)[1] if fits else None


def missed(scenario: str, points: Iterable[str]) -> set[str]:
    """Returns the functions with crash points that a scenario has to hit, and does not with these points."""
    needed = {
        call.function for call in durable_steps.primitive_steps() if scenario_of(call.function) == scenario
    }
    return needed - set(NOT_COVERED) - {point.partition(" ")[0] for point in points}
