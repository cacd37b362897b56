"""Events per second through the event log, embedded and on Kafka, beside kafka-python used directly, in one
run.

    python bench/eventlog_bench.py [--quick] [--events 10000] [--rounds 6] [--json FILE]

In each round all three are measured, another one first each time; shown are medians over rounds, and of each round's
ratios to kafka-python the median with its interval (blocks.py).

Each line is one process on this machine, the Kafka broker beside it on the same cores. "produce" counts
what is durable (embedded: fsynced; Kafka: acks=all) in calls of 500 records; "one at a time" waits for each
record; "there and back" is from the call of send to the record in the hands of a consumer that was waiting
for it. kafka-python directly is what it does best: idempotent producer with 64 KB batches and 5 ms linger,
one flush at the end. CPU is this process's time an event (the broker's is not in it): the figure to trust
on a machine that does other things.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer

from blocks import ratio
from openledger_testing.kafka_broker import KafkaBroker, fetch_jars
from servicekit.eventlog import EventLog, OutRecord, Topic, open_event_log

_CALL = 500
_SINGLES = 100
_PARTITIONS = 6
_SIZES = (200, 3000)
_PEER = "kafka-python"

Figures = dict[str, float]


def records(topic: str, count: int, size: int) -> list[OutRecord]:
    """Records like events: random bytes, the headers of a CloudEvent, many keys."""
    headers = (
        ("ce_id", b"01KCB3Q6Z4S0V6XG1V2C3D4E5F"),
        ("ce_type", b"openledger.inference.v1.InferenceCompleted"),
        ("ce_source", b"openledger/inference"),
        ("ce_time", b"2026-01-31T09:30:00.000000Z"),
        ("ce_specversion", b"1.0"),
    )
    return [OutRecord(topic, b"key%d" % (i % 997), os.urandom(size), headers) for i in range(count)]


def through_our_log(log: EventLog, topic: str, events: int, size: int) -> Figures:
    """Figures of one implementation."""
    log.ensure_topics([Topic(topic, _PARTITIONS)])
    sent = records(topic, events, size)
    producer = log.producer()
    producer.send(sent[:1])

    def produce() -> None:
        for start in range(0, events, _CALL):
            producer.send(sent[start : start + _CALL])

    produced_s, produced_cpu_s = timed(produce)
    consumer = log.consumer("bench", [topic])

    came_early = 0

    def consume() -> None:
        left = events + 1 - came_early
        while left > 0:
            found = consumer.poll(5, max_records=_CALL)
            left -= len(found)
            if found:
                consumer.commit({record.topic_partition: record.offset + 1 for record in found})

    while not consumer.assignment():
        came_early += len(consumer.poll(0.1, max_records=1))
    consumed_s, consumed_cpu_s = timed(consume)
    singles = [timed(lambda record=record: producer.send([record]))[0] for record in sent[:_SINGLES]]
    while consumer.poll(0.5):
        pass
    figures = {
        "produce_per_s": events / produced_s,
        "consume_per_s": events / consumed_s,
        "produce_cpu_us": produced_cpu_s / events * 1e6,
        "consume_cpu_us": consumed_cpu_s / events * 1e6,
        "one_at_a_time_p50_ms": statistics.median(singles) * 1000,
        "there_and_back_p50_ms": there_and_back(
            lambda record: producer.send([record]), lambda: consumer.poll(5), sent[:_SINGLES]
        ),
    }
    consumer.close()
    producer.close()
    return figures


def through_kafka_python(address: str, topic: str, events: int, size: int) -> Figures:
    """The same by kafka-python alone."""
    log = open_event_log(f"kafka://{address}")
    log.ensure_topics([Topic(topic, _PARTITIONS)])
    log.close()
    sent = records(topic, events, size)
    producer = KafkaProducer(bootstrap_servers=address, acks="all", linger_ms=5, batch_size=64 * 1024)

    def send(record: OutRecord) -> Any:
        return producer.send(topic, key=record.key, value=record.value, headers=list(record.headers))

    send(sent[0]).get()

    def produce() -> None:
        futures = [send(record) for record in sent]
        producer.flush()
        for future in futures:
            future.get()

    produced_s, produced_cpu_s = timed(produce)
    consumer = KafkaConsumer(
        topic, bootstrap_servers=address, group_id="bench", enable_auto_commit=False, auto_offset_reset="earliest"
    )  # fmt: skip

    def poll(timeout_ms: int = 5000, max_records: int = _CALL) -> int:
        return sum(map(len, consumer.poll(timeout_ms=timeout_ms, max_records=max_records).values()))

    came_early = 0

    def consume() -> None:
        left = events + 1 - came_early
        while left > 0:
            left -= poll()
            consumer.commit()

    while not consumer.assignment():
        came_early += poll(timeout_ms=100, max_records=1)
    consumed_s, consumed_cpu_s = timed(consume)
    singles = [timed(lambda record=record: send(record).get())[0] for record in sent[:_SINGLES]]
    while poll(timeout_ms=500):
        pass
    figures = {
        "produce_per_s": events / produced_s,
        "consume_per_s": events / consumed_s,
        "produce_cpu_us": produced_cpu_s / events * 1e6,
        "consume_cpu_us": consumed_cpu_s / events * 1e6,
        "one_at_a_time_p50_ms": statistics.median(singles) * 1000,
        "there_and_back_p50_ms": there_and_back(send, poll, sent[:_SINGLES]),
    }
    consumer.close()
    producer.close()
    return figures


def there_and_back(
    send: Callable[[OutRecord], object], poll: Callable[[], object], sent: list[OutRecord]
) -> float:
    """Median milliseconds from the send to the end of a poll that was waiting, in another thread."""
    times: list[float] = []
    for record in sent:
        waiting = threading.Event()
        arrived: list[float] = []

        def wait(waiting: threading.Event = waiting, arrived: list[float] = arrived) -> None:
            waiting.set()
            poll()
            arrived.append(time.perf_counter())

        thread = threading.Thread(target=wait)
        thread.start()
        waiting.wait()
        started = time.perf_counter()
        send(record)
        thread.join()
        times.append(arrived[0] - started)
    return statistics.median(times) * 1000


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds it takes, and seconds of this process's processor time."""
    started, started_cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - started_cpu


def main() -> int:
    """Measure, print the table, write the figures when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a quick check, not a measurement: 1,000 events, 1 round"
    )
    parser.add_argument("--events", type=int, default=10_000, help="records of a size and a round")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.events, arguments.rounds = 1_000, 1
    fetch_jars()
    with tempfile.TemporaryDirectory() as folder, KafkaBroker(Path(folder) / "kafka") as broker:
        embedded = open_event_log(f"embedded:{folder}/events.db")
        kafka = open_event_log(f"kafka://{broker.address}")
        ways: dict[str, Callable[[str, int, int], Figures]] = {
            "embedded": partial(through_our_log, embedded),
            "kafka": partial(through_our_log, kafka),
            _PEER: partial(through_kafka_python, broker.address),
        }
        found = measure(ways, arguments.events, arguments.rounds)
        embedded.close()
        kafka.close()
    show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def measure(
    ways: dict[str, Callable[[str, int, int], Figures]], events: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """By way and size: medians over the rounds, and `ratios` to kafka-python in the same round."""
    runs: dict[str, list[Figures]] = {f"{way}, {size} B": [] for size in _SIZES for way in ways}
    for round_ in range(rounds):
        for size in _SIZES:
            order = list(ways)[round_ % len(ways) :] + list(ways)[: round_ % len(ways)]
            for way in order:
                topic = f"bench.{way.replace('-', '')}{size}round{round_}.v1"
                runs[f"{way}, {size} B"].append(ways[way](topic, events, size))
    found: dict[str, dict[str, Any]] = {}
    for name, figures in runs.items():
        peers = runs[f"{_PEER}, {name.split(', ')[1]}"]
        found[name] = {key: statistics.median(each[key] for each in figures) for key in figures[0]}
        found[name]["ratios"] = {
            what: vars(ratio([each[what] for each in figures], [peer[what] for peer in peers]))
            for what in ("produce_per_s", "consume_per_s")
        }
    return found


def show(found: dict[str, dict[str, Any]]) -> None:
    """The table, with each throughput's ratio to kafka-python's."""
    print(
        f"{'':22}{'produce/s':>11}{'ratio':>20}{'CPU':>8}{'consume/s':>12}{'ratio':>20}{'CPU':>8}"
        f"{'one at a time':>15}{'there and back':>16}"
    )
    for name, of in found.items():
        produce, consume = of["ratios"]["produce_per_s"], of["ratios"]["consume_per_s"]
        print(
            f"{name:22}{of['produce_per_s']:11,.0f}{_ratio_text(produce):>20}{of['produce_cpu_us']:5.0f} us"
            f"{of['consume_per_s']:12,.0f}{_ratio_text(consume):>20}{of['consume_cpu_us']:5.0f} us"
            f"{of['one_at_a_time_p50_ms']:12.2f} ms{of['there_and_back_p50_ms']:13.2f} ms"
        )


def _ratio_text(ratio_: dict[str, Any]) -> str:
    return f"{ratio_['median']:.2f} [{ratio_['lower']:.2f}, {ratio_['upper']:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
