"""Lists: pages, filters, orders, totals and views, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openledger.common.v1.list_pb2 import VIEW_BASIC, VIEW_FULL
from openledger.datanet.v1 import datanet_pb2 as pb

from datanet import store
from datanet.entities import Contributor
from identity.digest import digest_hex
from openledger_client.errors import InvalidArgument, OpenLedgerError
from servicekit.database import transaction, utc_now

pytestmark = pytest.mark.slow

Encode = Callable[..., bytes]
Refusal = Callable[..., OpenLedgerError]


def texts(count: int) -> list[str]:
    """Sentences that pass every rule."""
    return [f"The actor{n} lists mailbox number {n} before encrypting archive {n}" for n in range(count)]


def pages(call: Callable[[Any], Any], request: Any) -> Iterator[Any]:
    """Yields every page of a list."""
    while True:
        page = call(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def records(net: Any, **fields: Any) -> pb.ListRecordsResponse:
    """Returns a page of the Datanet's records."""
    listed: pb.ListRecordsResponse = net.owner.ListRecords(pb.ListRecordsRequest(parent=net.name, **fields))
    return listed


def test_pages_together_are_the_list_in_order_of_arrival_with_one_total(net: Any, encode: Encode) -> None:
    net.contribute(net.alice, [encode(text) for text in texts(5)])
    request = pb.ListRecordsRequest(parent=net.name, page_size=2, contributor=net.alice, view=VIEW_FULL)
    found = list(pages(net.owner.ListRecords, request))
    assert [json.loads(each.content)["text"] for page in found for each in page.records] == texts(5)
    assert [page.total_size for page in found] == [5, 5, 5]


def test_a_page_of_long_records_fits_into_a_message(net: Any, encode: Encode) -> None:
    sent = [encode(text, source=f"report {text} " * 800) for text in texts(90)]
    assert {answer.state for answer in net.contribute(net.alice, sent)} == {pb.RECORD_STATE_ACCEPTED}
    request = pb.ListRecordsRequest(parent=net.name, page_size=1000, view=VIEW_FULL)
    found = list(pages(net.owner.ListRecords, request))
    assert max(page.ByteSize() for page in found) < 3_000_000
    assert len({each.name for page in found for each in page.records}) == 90
    assert len(found) > 1
    assert len(records(net, page_size=1000, view=VIEW_BASIC).records) == 90


def test_records_are_listed_without_their_content_unless_asked_for(net: Any, encode: Encode) -> None:
    net.contribute(net.alice, [encode(texts(1)[0])])
    basic, full = records(net).records[0], records(net, view=VIEW_FULL).records[0]
    assert (basic.content, json.loads(full.content)["text"]) == (b"", texts(1)[0])
    full.content = b""
    assert full == basic


def test_records_are_filtered_by_rule_contributor_and_state(net: Any, encode: Encode) -> None:
    net.contribute(net.alice, [encode(text) for text in texts(3)])
    net.contribute(net.bob, [encode("too short"), b"no record", encode(texts(3)[0])])
    rejected = records(net, filter="rule = too_short OR rule = exact_duplicate")
    assert sorted(each.rule for each in rejected.records) == ["exact_duplicate", "too_short"]
    assert rejected.total_size == 2
    assert records(net, filter="state = REJECTED").total_size == 3
    assert records(net, filter="-state = ACCEPTED").total_size == 3
    assert records(net, filter=f'contributor = "{net.bob}"').total_size == 3
    assert records(net, filter="rule = too_short", state=pb.RECORD_STATE_ACCEPTED).total_size == 0
    assert records(net, filter="rule = too_short", contributor=net.bob).total_size == 1
    one = rejected.records[0]
    assert [each.name for each in records(net, filter=f'name = "{one.name}"').records] == [one.name]


def test_records_are_sorted_by_time_newest_first(net: Any, encode: Encode) -> None:
    for text in texts(3):
        net.contribute(net.alice, [encode(text)])
    newest = records(net, order_by="create_time desc", view=VIEW_FULL).records
    assert [json.loads(each.content)["text"] for each in newest] == texts(3)[::-1]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"filter": "colour = red"}, "filter"),
        ({"filter": "state = MISPLACED"}, "filter"),
        ({"filter": "rule ="}, "filter"),
        ({"order_by": "content"}, "order_by"),
        ({"order_by": "create_time sideways"}, "order_by"),
        ({"page_token": "zzz"}, "page_token"),
    ],
)
def test_a_wrong_list_request_names_its_field(
    net: Any, refusal: Refusal, wrong: dict[str, str], field: str
) -> None:
    refused = refusal(net.owner.ListRecords, pb.ListRecordsRequest(parent=net.name, **wrong))
    assert isinstance(refused, InvalidArgument)
    assert refused.metadata["field"] == field


def test_a_page_token_belongs_to_its_request(net: Any, encode: Encode, refusal: Refusal) -> None:
    net.contribute(net.alice, [encode(text) for text in texts(3)])
    token = records(net, page_size=1).next_page_token
    other = pb.ListRecordsRequest(parent=net.name, filter="state = ACCEPTED", page_token=token)
    assert isinstance(refusal(net.owner.ListRecords, other), InvalidArgument)


def test_contributors_are_sorted_and_filtered_by_their_counts(net: Any, encode: Encode) -> None:
    net.contribute(net.alice, [encode(text) for text in texts(3)])
    net.contribute(net.bob, [encode("too short")])

    def listed(**fields: Any) -> pb.ListContributorsResponse:
        found: pb.ListContributorsResponse = net.owner.ListContributors(
            pb.ListContributorsRequest(parent=net.name, **fields)
        )
        return found

    assert [each.name for each in listed(order_by="rejected_count desc").contributors] == [net.bob, net.alice]
    only = listed(filter="accepted_count >= 3")
    assert [each.name for each in only.contributors] == [net.alice]
    assert only.total_size == 1
    assert [
        len(page.contributors)
        for page in pages(
            net.owner.ListContributors, pb.ListContributorsRequest(parent=net.name, page_size=1)
        )
    ] == [1, 1]


def test_a_page_of_contributors_with_long_names_fits_into_a_message(net: Any) -> None:
    with transaction(net.world.service.engine) as session:
        for number, size in enumerate((1_900_000, 100, 1_900_000)):  # characters of two bytes
            store.contributors.add(
                session,
                Contributor(
                    name=f"{net.name}/contributors/long-{number}",
                    principal=f"{net.id}-long-{number}",
                    display_name="\u00e9" * size,
                    payout_address="",
                    consent_licence="CC-BY-4.0",
                    consent_time=utc_now(),
                ),
            )
    found = list(pages(net.owner.ListContributors, pb.ListContributorsRequest(parent=net.name)))
    assert [[each.name.rsplit("/", 1)[1] for each in page.contributors] for page in found] == [
        ["alice", "bob"],
        ["long-0"],
        ["long-1"],
        ["long-2"],
    ]


def test_datanets_are_listed_without_templates_and_allowed_values_unless_asked_for(net: Any) -> None:
    def listed(view: Any) -> pb.Datanet:
        request = pb.ListDatanetsRequest(filter=f'name = "{net.name}"', view=view)
        found = net.owner.ListDatanets(request)
        assert found.total_size == 1
        only: pb.Datanet = found.datanets[0]
        return only

    assert listed(VIEW_FULL) == net.made
    basic = listed(VIEW_BASIC)
    assert (basic.schema.prompt_template, basic.schema.completion_template) == ("", "")
    assert [each.name for each in basic.schema.fields] == ["text", "tactic", "source"]
    assert not any(each.allowed_values for each in basic.schema.fields)
    assert basic.policy == net.made.policy


def test_datanets_are_filtered_by_owner(net: Any) -> None:
    request = pb.ListDatanetsRequest(filter=f'owner = "{net.id}-owner"')
    assert [each.name for each in net.owner.ListDatanets(request).datanets] == [net.name]


def test_snapshots_are_listed_newest_first_without_contributors_unless_asked_for(
    net: Any, encode: Encode
) -> None:
    sealed = []
    for text in texts(3):
        net.contribute(net.alice, [encode(text)])
        sealed.append(net.seal())

    def listed(**fields: Any) -> Any:
        return net.owner.ListSnapshots(pb.ListSnapshotsRequest(parent=net.name, **fields))

    assert list(listed(view=VIEW_FULL).snapshots) == sealed[::-1]
    assert not any(each.contributors for each in listed().snapshots)
    assert [each.name for each in listed(order_by="record_count").snapshots] == [each.name for each in sealed]
    large = listed(filter="record_count > 1")
    assert (large.total_size, len(large.snapshots)) == (2, 2)


def test_a_schema_too_large_for_a_message_is_refused(net: Any, refusal: Refusal) -> None:
    content = pb.Datanet(licence="x", schema=net.made.schema)
    content.schema.fields[1].allowed_values[:] = [f"{n:0>1000}" for n in range(1000)]
    del content.schema.fields[2]
    content.schema.fields.add(name="more", allowed_values=[f"{n:1>900}" for n in range(200)])
    refused = refusal(net.owner.CreateDatanet, pb.CreateDatanetRequest(datanet_id="large", datanet=content))
    assert isinstance(refused, InvalidArgument)
    assert refused.metadata["field"] == "datanet.schema"


FORMER_ID = "rubbish"  # old name


def test_records_with_the_former_rule_id_stay_readable(net: Any, encode: Encode) -> None:
    """Stored records keep the id that `low_quality` had before, and repeating one gives the same result."""
    from sqlalchemy import update

    from datanet.store.tables import RecordRow
    from servicekit.database import transaction

    sent = [encode("spam spam spam eggs spam spam spam ham spam spam spam")]
    first = net.contribute(net.alice, sent)[0]
    assert first.rule == "low_quality"
    with transaction(net.world.service.engine) as session:
        session.execute(update(RecordRow).where(RecordRow.digest == first.digest).values(rule=FORMER_ID))
    again = net.contribute(net.alice, sent)[0]
    assert (again.already_present, again.rule) == (True, FORMER_ID)
    found = records(net, filter=f"rule = {FORMER_ID}").records
    assert [digest_hex(each.digest) for each in found] == [digest_hex(first.digest)]
