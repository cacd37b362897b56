"""Streams of records that take long to judge do not keep reads waiting. `bench/fairness.py` measures for how long."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from openledger.datanet.v1 import datanet_pb2 as pb
from prometheus_client import REGISTRY

from datanet.intake import ContributionWriter
from servicekit.errors import Cancelled
from servicekit.testing.waiting import LONGEST_S, eventually

pytestmark = pytest.mark.slow

STREAMS = 34
"""More than a service has threads for reads."""


def to_judge() -> float:
    """Returns how many batches there are to judge, for each thread that judges."""
    return REGISTRY.get_sample_value("openledger_saturation_ratio", {"resource": "judging"}) or 0.0


def test_34_streams_whose_records_are_judged_without_end_do_not_keep_a_read_waiting(
    own_net: Any, encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def judge(*_: object) -> None:
        released.wait(LONGEST_S)
        raise Cancelled()

    monkeypatch.setattr(ContributionWriter, "judge", judge)
    contributors = [own_net.register(f"c{number}") for number in range(STREAMS)]
    streams = [
        own_net.client(name).Contribute(iter([pb.ContributeRequest(contributor=name, content=encode(name))]))
        for name in contributors
    ]
    eventually(lambda: to_judge() >= STREAMS / 2, "all streams to have a batch to judge")
    read = own_net.owner.GetDatanet(pb.GetDatanetRequest(name=own_net.name), timeout=LONGEST_S / 2)
    assert read.name == own_net.name
    for stream in streams:
        stream.cancel()
    released.set()
    eventually(lambda: to_judge() == 0, "the end of the judging")
