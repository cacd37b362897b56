"""The event log's contract (servicekit/eventlog/base.py), claim by claim, on both implementations."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest

from servicekit.eventlog import (
    Consumer,
    EventLog,
    Fenced,
    InRecord,
    OutRecord,
    RecordTooLarge,
    Topic,
    TopicPartition,
    UnknownTopic,
    open_event_log,
)
from servicekit.testing.waiting import eventually

NewTopic = Callable[..., str]

_PATIENCE_S = 60.0
_SESSION_S = 2.0
_LONG_SESSION_S = 200.0
"""Longer than these tests wait, and not longer than brokers and their clients accept."""


def records(topic: str, *values: str, key: str = "k") -> list[OutRecord]:
    return [OutRecord(topic, key.encode(), value.encode()) for value in values]


def values(found: list[InRecord]) -> list[str]:
    return [record.value.decode() for record in found]


def next_offsets(found: list[InRecord]) -> dict[TopicPartition, int]:
    return {record.topic_partition: record.offset + 1 for record in found}


def read(consumer: Consumer, count: int) -> list[InRecord]:
    """Poll until `count` records have come."""
    found: list[InRecord] = []

    def complete() -> bool:
        found.extend(consumer.poll(0.2))
        return len(found) >= count

    eventually(complete, f"{count} records")
    return found


def poll_until(settled: Callable[[list[int]], bool], *members: Consumer) -> list[InRecord]:
    """Poll all members, each in a thread of its own as processes would, until they own the right numbers of
    partitions; returns what came meanwhile.
    """
    found: list[InRecord] = []
    owned = [-1] * len(members)
    done = threading.Event()

    def poll(number: int, member: Consumer) -> None:
        while not done.is_set():
            found.extend(member.poll(0.2))
            owned[number] = len(member.assignment())
            if settled(owned):
                done.set()

    threads = [threading.Thread(target=poll, args=pair) for pair in enumerate(members)]
    for thread in threads:
        thread.start()
    came_true = done.wait(_PATIENCE_S)
    done.set()
    for thread in threads:
        thread.join()
    assert came_true, f"members own {owned} partitions"
    return found


def join(consumer: Consumer, partitions: int) -> None:
    """Poll, with nothing to read, until the member owns that many partitions."""
    assert poll_until(lambda owned: owned == [partitions], consumer) == []


@pytest.fixture
def topic(new_topic: NewTopic) -> str:
    return new_topic()


@pytest.fixture
def producer_send(log: EventLog) -> Iterator[Callable[[list[OutRecord]], None]]:
    producer = log.producer()
    yield producer.send
    producer.close()


Send = Callable[[list[OutRecord]], None]


class TestTopics:
    def test_ensuring_topics_twice_changes_nothing(self, log: EventLog, new_topic: NewTopic) -> None:
        name = new_topic(3)
        log.ensure_topics([Topic(name, 5)])
        assert log.end_offsets(name) == {0: 0, 1: 0, 2: 0}

    def test_several_processes_may_ensure_one_topic_at_once(
        self, log: EventLog, log_url: str, topic: str
    ) -> None:
        logs = [open_event_log(log_url) for _ in range(4)]
        raced = Topic(topic + ".raced", 2)
        threads = [threading.Thread(target=one.ensure_topics, args=([raced],)) for one in logs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one in logs:
            one.close()
        assert log.end_offsets(raced.name) == {0: 0, 1: 0}

    def test_unknown_topic_is_named(self, log: EventLog, producer_send: Send) -> None:
        unknown = "contract.nowhere.v1"
        with pytest.raises(UnknownTopic, match=unknown):
            producer_send(records(unknown, "a"))
        with pytest.raises(UnknownTopic, match=unknown):
            log.end_offsets(unknown)
        with pytest.raises(UnknownTopic, match=unknown):
            log.consumer("g", [unknown]).poll(0.1)


class TestOrderAndContent:
    def test_record_arrives_as_it_was_sent(self, log: EventLog, topic: str, producer_send: Send) -> None:
        headers = (("ce_id", b"1"), ("binary", bytes(range(256))), ("ce_id", b"again"), ("empty", b""))
        before_ms = time.time_ns() // 1_000_000
        producer_send([OutRecord(topic, b"\x00\xff", b"\x00value\xff", headers)])
        (found,) = read(log.consumer("g", [topic]), 1)
        assert (found.topic, found.key, found.value, found.headers) == (
            topic,
            b"\x00\xff",
            b"\x00value\xff",
            headers,
        )
        assert before_ms - 1 <= found.timestamp_ms <= time.time_ns() // 1_000_000 + 1

    def test_one_keys_records_share_a_partition_and_keep_their_order(
        self, log: EventLog, new_topic: NewTopic, producer_send: Send
    ) -> None:
        name = new_topic(4)
        for start in range(0, 300, 100):
            producer_send(
                [OutRecord(name, b"k%d" % (i % 7), str(i).encode()) for i in range(start, start + 100)]
            )
        seen: dict[bytes, list[int]] = defaultdict(list)
        partitions: dict[bytes, set[int]] = defaultdict(set)
        for record in read(log.consumer("g", [name]), 300):
            seen[record.key].append(int(record.value))
            partitions[record.key].add(record.partition)
        assert all(numbers == sorted(numbers) for numbers in seen.values())
        assert all(len(where) == 1 for where in partitions.values())
        assert len(set.union(*partitions.values())) > 1

    def test_producers_of_one_key_agree_on_its_partition(self, log: EventLog, new_topic: NewTopic) -> None:
        name = new_topic(5)
        for i in range(3):
            log.producer().send(records(name, str(i), key="same"))
        assert sorted(log.end_offsets(name).values()) == [0, 0, 0, 0, 3]

    def test_offsets_grow_and_end_offset_follows_the_last(
        self, log: EventLog, topic: str, producer_send: Send
    ) -> None:
        producer_send(records(topic, *"abcde"))
        offsets = [record.offset for record in read(log.consumer("g", [topic]), 5)]
        assert offsets == sorted(set(offsets))
        assert log.end_offsets(topic) == {0: offsets[-1] + 1}

    def test_a_poll_gives_no_more_than_asked(self, log: EventLog, topic: str, producer_send: Send) -> None:
        producer_send(records(topic, *map(str, range(50))))
        consumer = log.consumer("g", [topic])
        found: list[InRecord] = []
        while len(found) < 50:
            part = consumer.poll(5, max_records=7)
            assert 0 < len(part) <= 7 or not consumer.assignment()
            found += part
        assert values(found) == [str(i) for i in range(50)]

    def test_an_empty_send_is_nothing(self, log: EventLog, topic: str, producer_send: Send) -> None:
        producer_send([])
        assert log.end_offsets(topic) == {0: 0}

    def test_large_calls_arrive_whole_and_in_order(
        self, log: EventLog, topic: str, producer_send: Send
    ) -> None:
        wide = "x" * 100_000
        producer_send(records(topic, *(f"{i} {wide}" for i in range(30))))
        found = read(log.consumer("g", [topic]), 30)
        assert [int(value.split()[0]) for value in values(found)] == list(range(30))


class TestSize:
    def test_the_largest_record_passes(self, log: EventLog, topic: str, producer_send: Send) -> None:
        producer_send([OutRecord(topic, b"k" * 100, b"v" * (1_000_000 - 103), (("h", b"xx"),))])
        (found,) = read(log.consumer("g", [topic]), 1)
        assert len(found.value) == 1_000_000 - 103

    def test_a_larger_one_is_refused_and_nothing_of_the_call_is_written(
        self, log: EventLog, topic: str, producer_send: Send
    ) -> None:
        with pytest.raises(RecordTooLarge, match="1000001 bytes"):
            producer_send([*records(topic, "small"), OutRecord(topic, b"", b"v" * 1_000_001)])
        assert log.end_offsets(topic) == {0: 0}


class TestGroups:
    def test_each_group_gets_every_record_from_the_oldest(
        self, log: EventLog, topic: str, producer_send: Send
    ) -> None:
        producer_send(records(topic, "a", "b"))
        for group in ("one", "two"):
            assert values(read(log.consumer(group, [topic]), 2)) == ["a", "b"]

    def test_a_group_resumes_where_it_committed(self, log: EventLog, topic: str, producer_send: Send) -> None:
        producer_send(records(topic, *"abcd"))
        consumer = log.consumer("g", [topic])
        found = read(consumer, 4)
        consumer.commit(next_offsets(found[:2]))
        consumer.close()
        assert values(read(log.consumer("g", [topic]), 2)) == ["c", "d"]

    def test_what_was_not_committed_comes_again(self, log: EventLog, topic: str, producer_send: Send) -> None:
        producer_send(records(topic, "a"))
        consumer = log.consumer("g", [topic])
        read(consumer, 1)
        consumer.close()
        assert values(read(log.consumer("g", [topic]), 1)) == ["a"]

    def test_a_member_may_read_several_topics(
        self, log: EventLog, new_topic: NewTopic, producer_send: Send
    ) -> None:
        first, second = new_topic(), new_topic(2)
        producer_send([*records(first, "a"), *records(second, "b")])
        assert sorted(values(read(log.consumer("g", [first, second]), 2))) == ["a", "b"]

    def test_lag_is_what_is_left_to_commit(self, log: EventLog, topic: str, producer_send: Send) -> None:
        producer_send(records(topic, *"abc"))
        assert log.lag("g", topic) == {0: 3}
        assert log.committed("g", topic) == {}
        consumer = log.consumer("g", [topic])
        consumer.commit(next_offsets(read(consumer, 3)[:2]))
        assert log.lag("g", topic) == {0: 1}
        assert log.committed("g", topic) == {0: 2}

    def test_a_waiting_poll_returns_as_soon_as_a_record_is_there(
        self, log: EventLog, log_url: str, topic: str
    ) -> None:
        consumer = log.consumer("g", [topic])
        join(consumer, 1)
        other = open_event_log(log_url)
        producer = other.producer()
        producer.send(records(topic, "warm"))
        read(consumer, 1)
        waiting = threading.Thread(target=consumer.poll, args=(_LONG_SESSION_S,), daemon=True)
        waiting.start()
        producer.send(records(topic, "a"))
        waiting.join(_PATIENCE_S)
        assert not waiting.is_alive()
        other.close()

    def test_a_poll_of_nothing_ends_in_time(self, log: EventLog, topic: str) -> None:
        consumer = log.consumer("g", [topic])
        join(consumer, 1)
        started = time.monotonic()
        assert consumer.poll(0.3) == []
        assert 0.25 < time.monotonic() - started < _PATIENCE_S

    def test_waiting_costs_hardly_any_processor_time(self, log: EventLog, topic: str) -> None:
        consumer = log.consumer("g", [topic])
        join(consumer, 1)
        before = time.thread_time()
        for _ in range(4):
            assert consumer.poll(0.5) == []
        assert time.thread_time() - before < 0.5  # one poll after another would take two seconds of it


class TestPauseAndSeek:
    def test_a_paused_partition_waits_while_others_go_on(
        self, log: EventLog, new_topic: NewTopic, producer_send: Send
    ) -> None:
        slow, quick = new_topic(), new_topic()
        consumer = log.consumer("g", [slow, quick])
        join(consumer, 2)
        consumer.pause([TopicPartition(slow, 0)])
        producer_send([*records(slow, "s"), *records(quick, "q")])
        assert values(read(consumer, 1)) == ["q"]
        assert consumer.poll(0.2) == []
        consumer.resume([TopicPartition(slow, 0)])
        assert values(read(consumer, 1)) == ["s"]

    def test_seek_delivers_again_from_there(self, log: EventLog, topic: str, producer_send: Send) -> None:
        producer_send(records(topic, *"abc"))
        consumer = log.consumer("g", [topic])
        found = read(consumer, 3)
        consumer.seek(TopicPartition(topic, 0), found[1].offset)
        assert values(read(consumer, 2)) == ["b", "c"]

    def test_pausing_and_seeking_back_keeps_the_order(
        self, log: EventLog, topic: str, producer_send: Send
    ) -> None:
        producer_send(records(topic, *"abc"))
        consumer = log.consumer("g", [topic])
        found = read(consumer, 3)
        partition = TopicPartition(topic, 0)
        consumer.pause([partition])
        consumer.seek(partition, found[0].offset)
        assert consumer.poll(0.2) == []
        consumer.resume([partition])
        assert values(read(consumer, 3)) == ["a", "b", "c"]

    def test_only_an_owned_partition_can_be_sought(self, log: EventLog, topic: str) -> None:
        with pytest.raises(ValueError, match="not owned"):
            log.consumer("g", [topic]).seek(TopicPartition(topic, 0), 0)


class TestRetention:
    def test_a_late_group_and_one_whose_next_record_is_gone_go_on_at_the_oldest_kept(
        self, log: EventLog, new_topic: NewTopic
    ) -> None:
        name = new_topic(retention_hours=0)
        partition = TopicPartition(name, 0)
        early = log.consumer("early", [name])
        join(early, 1)
        early.commit({partition: 0})
        early.close()
        log.producer().send(records(name, "gone", "gone too"))

        def dropped() -> bool:
            log.producer().send(records(name, "later"))  # the embedded log drops at a producer's first send
            return log.lag("late", name)[0] <= log.end_offsets(name)[0] - 2

        eventually(dropped, "the end of the first records")
        assert log.lag("early", name)[0] <= log.end_offsets(name)[0] - 2
        producer = log.producer()
        for group in ("early", "late"):
            consumer = log.consumer(group, [name])

            def sent(consumer: Consumer = consumer) -> list[InRecord]:
                producer.send(records(name, "later"))
                return consumer.poll(0.2)

            found = eventually(sent, f"records for {group}")
            assert found[0].offset >= 2
            assert set(values(found)) == {"later"}
            consumer.close()

    def test_without_retention_records_stay(self, log: EventLog, topic: str) -> None:
        for number in range(3):
            log.producer().send(records(topic, str(number)))
        assert values(read(log.consumer("g", [topic]), 3)) == ["0", "1", "2"]


class TestPoison:
    def test_a_record_that_cannot_be_decoded_is_delivered_in_order_to_every_group(
        self, log: EventLog, topic: str, producer_send: Send
    ) -> None:
        poison = OutRecord(topic, b"", b"", (("\u00fc", b"\xff\xfe"), ("", b"")))
        producer_send([*records(topic, "before"), poison, *records(topic, "after")])
        for group in ("g", "h"):
            found = read(log.consumer(group, [topic]), 3)
            assert [record.value for record in found] == [b"before", b"", b"after"]
            assert found[1].headers == poison.headers


_SENDER = """
import sys
from servicekit.eventlog import OutRecord, open_event_log
url, topic, name = sys.argv[1:]
producer = open_event_log(url).producer()
for start in range(0, 200, 20):
    numbers = range(start, start + 20)
    producer.send([OutRecord(topic, name.encode(), f"{name} {number}".encode()) for number in numbers])
print("sent", flush=True)
sys.stdin.read()
"""


@pytest.mark.server
class TestProcesses:
    def test_what_processes_have_sent_at_once_outlives_them_in_each_ones_order(
        self, log: EventLog, log_url: str, new_topic: NewTopic
    ) -> None:
        topic = new_topic(2)
        senders = [
            subprocess.Popen(
                [sys.executable, "-c", _SENDER, log_url, topic, name],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for name in ("a", "b", "c")
        ]  # fmt: skip
        for sender in senders:
            assert sender.stdout is not None
            assert sender.stdout.readline() == "sent\n"
            sender.kill()
            sender.wait()
        found = values(read(log.consumer("g", [topic]), 600))
        for name in ("a", "b", "c"):
            assert [v for v in found if v.startswith(name)] == [f"{name} {n}" for n in range(200)]


class TestRebalance:
    def test_members_share_the_partitions_evenly_and_each_record_goes_to_one(
        self, log: EventLog, new_topic: NewTopic, producer_send: Send
    ) -> None:
        name = new_topic(4)
        first, second = log.consumer("g", [name]), log.consumer("g", [name])
        join(first, 4)
        poll_until(lambda owned: owned == [2, 2], first, second)
        assert not first.assignment() & second.assignment()
        producer_send([OutRecord(name, str(i).encode(), str(i).encode()) for i in range(40)])
        found: list[InRecord] = []

        def complete() -> bool:
            found.extend(first.poll(0.2) + second.poll(0.2))
            return len(found) >= 40

        eventually(complete, "40 records")
        assert sorted(map(int, values(found))) == list(range(40))

    def test_a_clean_hand_over_repeats_nothing(
        self, log: EventLog, new_topic: NewTopic, producer_send: Send
    ) -> None:
        name = new_topic(2)
        producer_send([OutRecord(name, str(i).encode(), str(i).encode()) for i in range(20)])
        first, second = log.consumer("g", [name]), log.consumer("g", [name])
        first.commit(next_offsets(read(first, 20)))
        again = poll_until(lambda owned: owned == [1, 1], first, second)
        assert again == []

    def test_a_member_that_leaves_is_succeeded_at_once(self, log: EventLog, topic: str) -> None:
        first = log.consumer("g", [topic], session_timeout_s=_LONG_SESSION_S)
        join(first, 1)
        second = log.consumer("g", [topic], session_timeout_s=_LONG_SESSION_S)
        assert second.poll(0.1) == []
        first.close()
        join(second, 1)  # far within the lease

    def test_closing_a_log_leaves_the_group_also_for_a_consumer_that_was_collected(
        self, log: EventLog, log_url: str, topic: str
    ) -> None:
        other = open_event_log(log_url)
        join(other.consumer("g", [topic], session_timeout_s=_LONG_SESSION_S), 1)
        gc.collect()
        successor = log.consumer("g", [topic], session_timeout_s=_LONG_SESSION_S)
        assert successor.poll(0.1) == []
        assert successor.assignment() == frozenset()
        other.close()
        join(successor, 1)  # far within the lease

    @pytest.mark.server
    def test_a_killed_members_partitions_are_taken_over_and_what_it_left_comes_again(
        self, log: EventLog, log_url: str, topic: str, producer_send: Send
    ) -> None:
        producer_send(records(topic, *"abc"))
        program = (
            "import sys\n"
            "from servicekit.eventlog import open_event_log\n"
            "url, topic, session_s = sys.argv[1:]\n"
            "consumer = open_event_log(url).consumer('g', [topic], session_timeout_s=float(session_s))\n"
            "found = []\n"
            "while len(found) < 3:\n"
            "    found += consumer.poll(1)\n"
            "consumer.commit({found[0].topic_partition: found[0].offset + 1})\n"
            "print('committed one', flush=True)\n"
            "sys.stdin.read()\n"
        )
        member = subprocess.Popen(
            [sys.executable, "-c", program, log_url, topic, str(_SESSION_S)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert member.stdout is not None
        assert member.stdout.readline() == "committed one\n"
        member.kill()
        member.wait()
        successor = log.consumer("g", [topic], session_timeout_s=_SESSION_S)
        assert values(read(successor, 2)) == ["b", "c"]

    def test_a_late_commit_for_a_lost_partition_is_fenced(
        self, log: EventLog, new_topic: NewTopic, producer_send: Send
    ) -> None:
        name = new_topic(2)
        producer_send([OutRecord(name, str(i).encode(), str(i).encode()) for i in range(20)])
        first = log.consumer("g", [name], session_timeout_s=_SESSION_S)
        second = log.consumer("g", [name], session_timeout_s=_SESSION_S)
        found = read(first, 20)
        poll_until(lambda owned: owned == [1, 1], first, second)
        (lost,) = second.assignment()
        with pytest.raises(Fenced):
            first.commit({lost: next_offsets(found)[lost]})
        assert log.committed("g", name) == {}

    def test_a_partition_never_owned_cannot_be_committed(self, log: EventLog, topic: str) -> None:
        with pytest.raises(Fenced):
            log.consumer("g", [topic]).commit({TopicPartition(topic, 0): 1})
