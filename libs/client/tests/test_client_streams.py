"""Lists, watches, uploads and downloads continue over pages and lost connections, with nothing lost and nothing twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from openledger.common.v1.object_pb2 import ObjectChunk
from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.settlement.v1 import settlement_pb2
from openledger.trainer.v1 import trainer_pb2

from openledger_client import Addresses, AsyncClient, Client
from openledger_client.downloads import Download
from openledger_client.errors import DataLoss, InvalidArgument, Unavailable, Unimplemented
from openledger_client.paging import async_items, items, pages
from openledger_client.resumption import Patience
from openledger_client.testing import DIGEST, OBJECT, Script
from openledger_client.uploads import contribute
from openledger_client.watches import async_watch, watch

LIST = pb.ListDatanetsRequest()
WATCH = settlement_pb2.WatchBatchRequest(name="batches/1")
WHOLE = [1, 2, 3, 4, 5]
CONTRIBUTOR = "datanets/d/contributors/c"


def names(found: Iterator[pb.Datanet]) -> list[str]:
    return [each.name[-1] for each in found]


def test_items_of_all_pages_come_in_order(client: Client, script: Script) -> None:
    assert names(items(client.datanet.ListDatanets, LIST, lambda page: page.datanets)) == list("01234")
    assert [request.page_token for request in script.requests] == ["", "2", "4"]
    assert LIST.page_token == ""


def test_a_limit_reads_no_more_than_it_needs(client: Client, script: Script) -> None:
    assert names(items(client.datanet.ListDatanets, LIST, lambda page: page.datanets, limit=3)) == list("012")
    assert [request.page_size for request in script.requests] == [3]


def test_pages_come_whole(client: Client) -> None:
    assert [len(page.datanets) for page in pages(client.datanet.ListDatanets, LIST)] == [2, 2, 1]


async def test_asyncio_lists_and_watches(addresses: Addresses, script: Script) -> None:
    async with AsyncClient(addresses) as client:
        found = async_items(client.datanet.ListDatanets, LIST, lambda page: page.datanets, limit=4)
        assert [each.name[-1] async for each in found] == list("0123")
        script.cut_after = [2]
        states = [
            batch.state
            async for batch in async_watch(
                client.settlement.WatchBatch, WATCH, patience=Patience(first_s=0.001)
            )
        ]
    assert states == WHOLE


@pytest.mark.parametrize("cuts", [[], [0], [3], [1, 1, 4], [5]])
def test_a_watch_yields_each_update_once_however_often_it_is_cut(
    client: Client, script: Script, waits: list[float], cuts: list[int]
) -> None:
    script.cut_after = list(cuts)
    found = [b.state for b in watch(client.settlement.WatchBatch, WATCH, sleep=waits.append)]
    assert found == WHOLE


def test_a_watch_gives_up_when_nothing_new_comes_for_too_long(client: Client, script: Script) -> None:
    script.cut_after = [2] * 100
    now = iter(range(0, 10_000, 25))
    patience = Patience(patience_s=60, clock=lambda: next(now))
    found = watch(client.settlement.WatchBatch, WATCH, patience=patience, sleep=lambda _: None)
    assert [next(found).state, next(found).state] == [1, 2]
    with pytest.raises(Unavailable):
        next(found)
    assert 3 <= len(script.requests) <= 5


def test_a_refused_watch_is_not_repeated(client: Client) -> None:
    from openledger.trainer.v1 import trainer_pb2

    with pytest.raises(Unimplemented):
        list(watch(client.trainer.WatchEvaluation, trainer_pb2.WatchEvaluationRequest()))


@pytest.mark.parametrize("cuts", [[], [0], [3], [0, 1, 2, 3]])
def test_an_upload_that_is_cut_loses_and_doubles_nothing(
    client: Client, script: Script, waits: list[float], cuts: list[int]
) -> None:
    script.cut_after = list(cuts)
    records = [b"record %d" % n for n in range(40)]
    answers = list(contribute(client.datanet, CONTRIBUTOR, records, window=4, sleep=waits.append))
    assert script.stored == records
    assert [answer.sequence for answer in answers] == list(range(1, 41))
    assert sum(answer.already_present for answer in answers) == len(cuts)


def test_a_source_may_wait_for_acknowledgements(client: Client) -> None:
    acknowledged = threading.Event()

    def records() -> Iterator[bytes]:
        yield b"first"
        assert acknowledged.wait(120)
        yield b"second"

    answers = contribute(client.datanet, CONTRIBUTOR, records())
    assert next(answers).sequence == 1
    acknowledged.set()
    assert [answer.sequence for answer in answers] == [2]


def test_records_that_wait_for_acknowledgement_have_a_bound_in_bytes(client: Client) -> None:
    read = acknowledged = most = 0

    def records() -> Iterator[bytes]:
        nonlocal read, most
        for read in range(1, 51):
            most = max(most, read - acknowledged)
            yield b"%099d " % read

    for answer in contribute(client.datanet, CONTRIBUTOR, records(), window_bytes=250):
        acknowledged = answer.sequence
    assert acknowledged == 50
    assert most <= 4  # three wait, and the acknowledgement of one is not seen here yet


def test_a_record_that_is_not_bytes_is_named(client: Client, script: Script) -> None:
    records: list[Any] = [b"first", '{"text": "second"}']
    answers = contribute(client.datanet, CONTRIBUTOR, records)
    assert next(answers).sequence == 1
    with pytest.raises(InvalidArgument, match=r"records\[1\]: is str; bytes of UTF-8 JSON are needed"):
        next(answers)
    assert script.stored == [b"first"]


def test_what_the_source_raises_reaches_the_caller(client: Client) -> None:
    def records() -> Iterator[bytes]:
        yield b"first"
        raise ValueError("line 2 is not JSON")

    answers = contribute(client.datanet, CONTRIBUTOR, records())
    assert next(answers).sequence == 1
    with pytest.raises(ValueError, match="line 2"):
        next(answers)


@pytest.mark.parametrize("cuts", [[], [0], [7], [3, 9, 1]])
def test_a_download_that_is_cut_is_whole_and_verified(
    client: Client, script: Script, tmp_path: Path, waits: list[float], cuts: list[int]
) -> None:
    script.cut_after = list(cuts)
    download = Download(client.datanet.DownloadSnapshot, pb.DownloadSnapshotRequest(), sleep=waits.append)
    assert download.save(tmp_path / "new" / "records.jsonl").read_bytes() == OBJECT
    assert (download.digest, download.size, download.received) == (DIGEST, len(OBJECT), len(OBJECT))


def test_a_download_continues_where_it_was_cut_if_its_request_can_say_so() -> None:
    asked: list[int] = []

    class Cut:
        """A stream of one chunk, which is cut behind it unless it is the last."""

        def __init__(self, offset: int) -> None:
            self._offset = offset

        def __iter__(self) -> Iterator[ObjectChunk]:
            data = OBJECT[self._offset : self._offset + 300]
            yield ObjectChunk(digest=DIGEST, size=len(OBJECT), offset=self._offset, data=data)
            if self._offset + len(data) < len(OBJECT):
                raise Unavailable("cut")

        def cancel(self) -> None: ...

    def call(request: trainer_pb2.DownloadModelVersionRequest) -> Any:
        asked.append(request.offset)
        return Cut(request.offset)

    request = trainer_pb2.DownloadModelVersionRequest(name="models/m/versions/1")
    download: Any = Download(cast(Any, call), request, sleep=lambda _: None)
    assert download.read() == OBJECT
    assert (asked, request.offset) == ([0, 300, 600], 0)


def test_bytes_without_their_digest_are_refused_and_leave_no_file(
    client: Client, script: Script, tmp_path: Path
) -> None:
    script.sent = OBJECT[:-1] + b"!"
    with pytest.raises(DataLoss, match=DIGEST):
        Download(client.datanet.DownloadSnapshot, pb.DownloadSnapshotRequest()).save(
            tmp_path / "records.jsonl"
        )
    assert list(tmp_path.iterdir()) == []


def test_another_object_than_the_expected_is_refused(client: Client) -> None:
    expected = "sha256:" + "0" * 64
    with pytest.raises(DataLoss, match="instead of"):
        Download(client.datanet.DownloadSnapshot, pb.DownloadSnapshotRequest(), digest=expected).read()
