"""The small story on a real Kafka: the setting alone moves the platform from one event log to the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openledger_testing.kafka_broker import KafkaBroker, fetch_jars
from servicekit.eventlog import open_event_log, topics

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.story]

_ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 900


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker of the story's own: other tests' events are none of its services' business."""
    fetch_jars()
    own = KafkaBroker(tmp_path / "kafka")
    own.start()
    yield own
    own.kill()


def test_the_setting_is_all_it_takes(broker: KafkaBroker, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    url = f"kafka://{broker.address}"
    finished = subprocess.run(
        [sys.executable, "-m", "threat_intel", "demo", "--small", "--fresh", "--out", str(out)],
        env={**os.environ, "OPENLEDGER_EVENT_LOG": url},
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert finished.returncode == 0, f"{finished.stdout[-4000:]}\n{finished.stderr[-2000:]}"
    assert not (out / "state" / "events.db").exists()
    steps = {step["step"]: step for step in json.loads((out / "story.json").read_text())["steps"]}
    asked = {answer["inference"] for answer in steps["answer"]["facts"]["answers"]}
    assert set(steps["attribute"]["facts"]["records"]) == asked
    assert sum(batch["events"] for batch in steps["settle"]["facts"]["batches"]) == len(asked)
    assert all(finding["passed"] for finding in steps["verify"]["facts"]["findings"])
    log = open_event_log(url)
    for topic in topics.ALL:
        assert sum(log.end_offsets(topic.name).values()) > 0, topic.name
    for group, topic in (("attribution", "inference.completed.v1"), ("chain-relay", "attribution.scored.v1")):
        assert sum(log.lag(group, topic).values()) == 0
        assert log.end_offsets(f"{topic}.dlq") == {0: 0}
    log.close()
