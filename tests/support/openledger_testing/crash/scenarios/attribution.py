"""attribution: a version is promoted, its index built, answers of it and of the base scored. All events wait in the log."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.trainer.v1 import events_pb2, trainer_pb2

from attribution.service import build
from attribution.settings import AttributionSettings
from openledger_testing.crash.service_run import Using
from openledger_testing.crash.service_run import live as live_service
from openledger_testing.crash.stored_state import (
    appearances,
    check_at_rest,
    check_objects,
    events,
    lag,
    one,
    rows,
)
from openledger_testing.repository import ROOT
from servicekit.eventlog import open_event_log, topics
from servicekit.eventlog.events import new_event, to_record
from servicekit.testing.waiting import eventually

TOPICS = (topics.DATANET_SNAPSHOT_V1, topics.MODEL_VERSION_V1, topics.INFERENCE_COMPLETED_V1)
TREASURY = "0x" + "9" * 40


def colours() -> Any:
    """The planted world of attribution's own tests."""
    path = ROOT / "services" / "attribution" / "tests" / "conftest.py"
    spec = spec_from_file_location("attribution_conftest", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def prepare(folder: Path) -> None:
    """A trained adapter, and the index that a run without a kill makes of it."""
    world = colours().make_world(folder)
    version = trainer_pb2.ModelVersion(
        name=world.version, state=trainer_pb2.MODEL_VERSION_STATE_PROMOTED, digest=world.version_digest,
        base_digest=world.base_digest, adapter_digest=world.adapter_digest, training_manifest_digest=world.manifest_digest,
    )  # fmt: skip
    sealed = datanet_events.SnapshotSealed()
    sealed.snapshot.name = world.snapshot
    sealed.datanet.name = world.datanet
    sealed.datanet.treasury_address = TREASURY
    answers = [
        world.answer("fire ember flame ash 1", "red"),
        world.answer("moss fern 2", "green"),
        world.answer("a", "b", by_base=True),
    ]
    log = open_event_log(f"embedded:{folder / 'events.db'}")
    log.ensure_topics(TOPICS)
    promoted = events_pb2.ModelVersionChanged(model_version=version)
    given = [
        to_record(new_event(topics.INFERENCE_COMPLETED_V1, each.inference, each, "test")) for each in answers
    ]
    published = [
        to_record(new_event(topics.DATANET_SNAPSHOT_V1, world.datanet, sealed, "test")),
        to_record(new_event(topics.MODEL_VERSION_V1, "models/colours", promoted, "test")),
    ]
    log.producer().send([*published, *given, *given])  # twice, as from a sender that saw no acknowledgement
    log.close()


def database(folder: Path) -> Path:
    return folder / "attribution" / "attribution.db"


def live(folder: Path) -> None:
    os.environ["OPENLEDGER_COMPUTE"] = "fp32"
    settings = AttributionSettings(
        state_dir=folder,
        auth_mode="development",
        grace_s=5,
        log_level="WARNING",
        batch_tokens=1024,
        permutations=99,
        resamples=100,
    )
    live_service(build(settings), folder, use)


def use(using: Using) -> None:
    found = database(using.folder)
    eventually(
        lambda: lag(using.folder, "attribution", *(topic.name for topic in TOPICS)) == 0,
        "all events are taken in",
    )
    eventually(
        lambda: one(found, "SELECT count(*) FROM answers WHERE pending") == 0, "all answers are scored"
    )
    eventually(lambda: one(found, "SELECT count(*) FROM outbox") == 0, "all events are published")


def check(folder: Path) -> None:
    given = [message.inference for message in events(folder, topics.INFERENCE_COMPLETED_V1.name).values()]
    published = events(folder, topics.ATTRIBUTION_SCORED_V1.name).values()
    assert appearances([message.attribution.inference for message in published]) == dict.fromkeys(given, 1), (
        "each answer is attributed once"
    )
    kept = dict(rows(database(folder), "SELECT id, record FROM answers"))
    for message in published:
        attribution = message.attribution
        assert sum(share.ppm for share in attribution.shares) + attribution.unattributed_ppm == 1_000_000
        assert kept[attribution.inference.removeprefix("inferences/")] == attribution.canonical_json
        shares = rows(
            database(folder),
            "SELECT contributor, ppm FROM shares WHERE answer = ?",
            attribution.inference[11:],
        )
        assert dict(shares) == {
            share["contributor"]: share["ppm"] for share in json.loads(attribution.canonical_json)["shares"]
        }
    ((digest, error),) = rows(database(folder), "SELECT digest, error FROM indexes")
    assert digest in check_objects(folder), error
    expect_index(folder, digest)
    check_at_rest(folder, database(folder), "attribution", *(topic.name for topic in TOPICS))


def expect_index(folder: Path, digest: str) -> None:
    """The same records and model give the same index, wherever its building was cut off. The first check notes which."""
    noted = folder.parent / "index-digest"
    if not noted.exists():
        noted.write_text(digest)
    assert noted.read_text() == digest, f"index {digest} is not {noted.read_text()}"
