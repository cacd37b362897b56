"""What recording an answer costs the hot path, an event: nothing waits for Kafka, so this is all of it.

    python bench/answer_cost_bench.py [--quick] [--answers 20000] [--json FILE]

An answer of 300 prompt tokens and 200 output tokens with their log probabilities, as the engine hands it over. "handed over"
is the engine's thread: the only cost between two steps of the batch. "encoded" and "appended" are the recorder's thread,
before the client receives the end: event, CloudEvent headers and protobuf; then frame, checksum and write to the write-ahead
log, whose fsync is another thread's. "logged" is the recorder's line. The peer is os.write of the same bytes to a file: what
the kernel asks for it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference.answer import Answer, Finish, Request
from inference.answer_log import AnswerLog
from inference.catalogue import Served
from inference.events import inference_completed
from inference.sampling import Sampling
from servicekit.database import ulid, utc_now
from servicekit.eventlog.events import to_record
from servicekit.telemetry.logs import JsonFormatter
from servicekit.wal import Wal, pack

PROMPT_TOKENS, OUTPUT_TOKENS = 300, 200


class NoListener:
    """A listener that ignores everything."""

    def text(self, piece: str) -> None: ...

    def finished(self, answer: Answer) -> None: ...

    def failed(self, error: Exception) -> None: ...


def answer(number: int) -> Answer:
    """A finished answer."""
    served = Served(
        name="models/m/versions/1",
        base_digest="sha256:" + "a" * 64,
        adapter_digest="sha256:" + "b" * 64,
        version_digest="sha256:" + "c" * 64,
    )
    request = Request(
        inference=f"inferences/{ulid()}",
        served=served,
        prompt="a request of some length " * 50,
        prompt_tokens=tuple((number + n) % 49_152 for n in range(PROMPT_TOKENS)),
        sampling=Sampling(max_output_tokens=OUTPUT_TOKENS),
        principal="someone",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    )
    return Answer(
        request=request,
        output_tokens=tuple((number * 7 + n) % 49_152 for n in range(OUTPUT_TOKENS)),
        log_probabilities=tuple(-1.5 - n / OUTPUT_TOKENS for n in range(OUTPUT_TOKENS)),
        text="an answer of some length " * 35,
        finish=Finish.LENGTH,
        time_to_first_token_s=0.05,
        duration_s=2.0,
        finished=utc_now(),
    )


def each(work: Callable[[Any], object], inputs: list[Any]) -> dict[str, float]:
    """Median and p99 of one call, microseconds."""
    times = []
    for given in inputs:
        begun = time.perf_counter_ns()
        work(given)
        times.append((time.perf_counter_ns() - begun) / 1000)
    return {"p50_us": statistics.median(times), "p99_us": statistics.quantiles(times, n=100)[98]}


def measure(count: int, folder: Path) -> dict[str, Any]:
    """Each part by itself, over the same answers."""
    answers = [answer(number) for number in range(count)]
    wal = Wal(folder / "wal", max_bytes=1 << 33)
    log = AnswerLog(lambda event: None, (), "cpu")
    packed = [pack(to_record(inference_completed(each_, (), "cpu"))) for each_ in answers]
    plain = os.open(folder / "plain", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    lines = _lines()
    found = {
        "handed over": each(lambda given: log.record(given, NoListener()), answers),
        "encoded": each(lambda given: pack(to_record(inference_completed(given, (), "cpu"))), answers),
        "appended": each(wal.append, packed),
        "logged": each(
            lambda given: lines.info("answer recorded", extra={"inference": given.request.inference}),
            answers,
        ),
        "os.write of the same bytes": each(lambda given: os.write(plain, given), packed),
    }
    os.close(plain)
    wal.close()
    return {"event_bytes": len(packed[0]), "answers": count, **found}


def _lines() -> logging.Logger:
    """The recorder's log, whose lines go nowhere."""
    handler = logging.FileHandler(os.devnull)
    handler.setFormatter(JsonFormatter("inference"))
    logger = logging.getLogger("bench")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def main() -> int:
    """Measure, print, write the figures when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a quick check, not a measurement: 1,000 answers"
    )
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(1_000 if arguments.quick else arguments.answers, Path(folder))
    print(f"{found['event_bytes']} bytes an event, {found['answers']} answers")
    for name, times in found.items():
        if isinstance(times, dict):
            print(f"{name:28}{times['p50_us']:9.1f} us median{times['p99_us']:9.1f} us p99")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
