"""The whole service through its gRPC API, on SQLite and on PostgreSQL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from openledger.common.v1.list_pb2 import VIEW_FULL as FULL
from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.datanet.v1 import events_pb2

from identity.digest import digest_hex, digest_json
from identity.snapshot import read_lines, root
from openledger_client.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OpenLedgerError,
    PermissionDenied,
    Unauthenticated,
    from_status,
)

pytestmark = pytest.mark.slow

Encode = Callable[..., bytes]
Refusal = Callable[..., OpenLedgerError]

ACCEPTED, REJECTED = pb.RECORD_STATE_ACCEPTED, pb.RECORD_STATE_REJECTED
PENDING, WITHDRAWN = pb.RECORD_STATE_PENDING, pb.RECORD_STATE_WITHDRAWN
ABOUT_TEXT = pb.DECISION_SUBJECT_TEXT


def texts(count: int) -> list[str]:
    """Sentences that are not near-duplicates of each other."""
    verbs = ("lists", "copies", "encrypts", "uploads", "deletes", "reads", "renames")
    things = ("processes", "mailboxes", "archives", "accounts", "shares", "tokens", "drivers", "logs")
    made = [
        f"Actor{n} {verbs[n % 7]} {things[n % 8]} {n} before {verbs[n % 5]}{n} its {things[n % 3]}{n}"
        for n in range(count)
    ]
    return made


def test_a_datanet_is_what_was_asked_for_with_its_defaults_written_out(net: Any) -> None:
    found = net.owner.GetDatanet(pb.GetDatanetRequest(name=net.name))
    assert found == net.made
    assert found.owner == f"{net.id}-owner"
    assert found.policy.near_duplicate_threshold == 0.7
    assert "IP_ADDRESS" not in found.policy.personal_data_entities
    assert found.schema.fields[2].max_length == 65_536


def test_creating_again_by_the_same_request_is_the_same_datanet_and_by_another_is_refused(
    net: Any, refusal: Refusal
) -> None:
    content = net.definition
    again = pb.CreateDatanetRequest(datanet_id=net.id, datanet=content, request_id="create")
    assert net.owner.CreateDatanet(again) == net.made
    other = pb.CreateDatanetRequest(datanet_id=net.id, datanet=content, request_id="other")
    assert isinstance(refusal(net.owner.CreateDatanet, other), AlreadyExists)


def test_the_error_names_what_does_not_exist(net: Any, refusal: Refusal) -> None:
    missing = refusal(net.owner.GetDatanet, pb.GetDatanetRequest(name="datanets/nowhere"))
    assert isinstance(missing, NotFound)
    assert missing.metadata == {"kind": "datanet", "name": "datanets/nowhere"}
    snapshot = refusal(net.owner.GetSnapshot, pb.GetSnapshotRequest(name=f"{net.name}/snapshots/7"))
    assert snapshot.metadata["name"] == f"{net.name}/snapshots/7"
    request = pb.ContributeRequest(contributor=f"{net.name}/contributors/unknown", content=b"{}")
    stranger = refusal(net.client("alice").Contribute, iter([request]))
    assert isinstance(stranger, NotFound)
    assert stranger.metadata["name"] == f"{net.name}/contributors/unknown"


def test_evaluation_items_that_are_not_stored_are_refused_at_creation(net: Any, refusal: Refusal) -> None:
    policy = pb.QualityPolicy(gate_items_digest="sha256:" + "0" * 64)
    content = pb.Datanet(licence="x", schema=net.made.schema, policy=policy)
    request = pb.CreateDatanetRequest(datanet_id=net.id + "-gated", datanet=content)
    assert isinstance(refusal(net.owner.CreateDatanet, request), NotFound)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"payout_address": "0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed"}, "contributor.payout_address"),
        ({"consent_licence": "other"}, "contributor.consent_licence"),
        ({"consent_licence": ""}, "contributor.consent_licence"),
        ({"principal": ""}, "contributor.principal"),
        ({"display_name": "a\0b"}, "contributor.display_name"),
    ],
)
def test_a_contributor_that_could_not_be_paid_or_did_not_consent_is_refused(
    net: Any, refusal: Refusal, change: dict[str, str], field: str
) -> None:
    content = net.contributor("carol")
    for name, value in change.items():
        setattr(content, name, value)
    request = pb.RegisterContributorRequest(parent=net.name, contributor_id="carol", contributor=content)
    refused = refusal(net.owner.RegisterContributor, request)
    assert isinstance(refused, InvalidArgument)
    assert refused.metadata["field"] == field


def test_one_principal_is_one_contributor(net: Any, refusal: Refusal) -> None:
    content = net.contributor("alice")
    request = pb.RegisterContributorRequest(parent=net.name, contributor_id="alice2", contributor=content)
    assert isinstance(refusal(net.owner.RegisterContributor, request), AlreadyExists)


@pytest.mark.parametrize(
    "spelling",
    [
        lambda name: name.upper(),
        lambda name: name + " ",
        lambda name: name.replace("a", "\u0430"),
        lambda name: name.replace("e", "e\u0301"),
        lambda name: name.replace("i", "1"),
    ],
    ids=["case", "space", "cyrillic", "nfd", "digit"],
)
@pytest.mark.parametrize("field", ["principal", "display_name"])
def test_a_second_spelling_of_a_name_is_no_second_contributor(
    net: Any, refusal: Refusal, field: str, spelling: Callable[[str], str]
) -> None:
    content = net.contributor("carol")
    setattr(content, field, spelling(getattr(net.contributor("alice"), field)))
    request = pb.RegisterContributorRequest(parent=net.name, contributor_id="carol", contributor=content)
    refused = refusal(net.owner.RegisterContributor, request)
    assert isinstance(refused, AlreadyExists)
    assert net.alice in str(refused)


def test_the_second_spelling_of_a_contributor_has_no_right_of_the_first(
    net: Any, encode: Encode, refusal: Refusal
) -> None:
    other = net.world.client(f"{net.id}-Alice", "contributor")
    stream = [pb.ContributeRequest(contributor=net.alice, content=encode(texts(1)[0]))]
    assert isinstance(refusal(other.Contribute, iter(stream)), PermissionDenied)


def test_one_payout_address_for_two_contributors_is_refused(net: Any, refusal: Refusal) -> None:
    content = net.contributor("carol")
    content.payout_address = net.contributor("alice").payout_address
    request = pb.RegisterContributorRequest(parent=net.name, contributor_id="carol", contributor=content)
    refused = refusal(net.owner.RegisterContributor, request)
    assert isinstance(refused, AlreadyExists)
    assert "payout address" in str(refused)
    request.contributor.payout_address = ""
    assert net.owner.RegisterContributor(request).payout_address == ""


def test_a_stream_continues_after_a_rejection_and_answers_in_order(net: Any, encode: Encode) -> None:
    good = [encode(text) for text in texts(3)]
    sent = [good[0], b"\xff", b"", good[1], encode("too short"), b"x" * ((1 << 20) + 1), good[2]]
    answers = net.contribute(net.alice, sent)
    assert [answer.sequence for answer in answers] == list(range(7))
    assert [answer.state == ACCEPTED for answer in answers] == [True, False, False, True, False, False, True]
    assert [answer.rule for answer in answers if answer.rule] == [
        "not_utf8",
        "empty",
        "too_short",
        "too_large",
    ]
    assert answers[0].digest == digest_json(json.loads(good[0]))
    assert not answers[0].HasField("status")
    refused = from_status(answers[1].status)
    assert isinstance(refused, InvalidArgument)
    assert refused.metadata["rule"] == "not_utf8"


def test_a_rejected_label_names_field_and_rule(net: Any, encode: Encode) -> None:
    answer = net.contribute(net.alice, [encode(texts(1)[0], tactic="magic")])[0]
    refused = from_status(answer.status)
    assert isinstance(refused, InvalidArgument)
    assert refused.metadata == {"field": "tactic", "rule": "label_not_allowed"}
    assert "discovery" in refused.message


def test_sending_again_changes_nothing_and_answers_the_same(net: Any, encode: Encode) -> None:
    sent = [encode(texts(1)[0]), b"no record", encode("too short")]
    first, second = net.contribute(net.alice, sent), net.contribute(net.alice, sent)
    assert not any(answer.already_present for answer in first)
    assert all(answer.already_present for answer in second)
    for before, after in zip(first, second, strict=True):
        after.already_present = False
        assert after == before
    assert _counts(net)["alice"] == (1, 2)


def test_the_same_record_in_one_stream_twice_is_there_once(net: Any, encode: Encode) -> None:
    answers = net.contribute(net.alice, [encode(texts(1)[0])] * 3)
    assert [answer.already_present for answer in answers] == [False, True, True]
    assert _counts(net)["alice"] == (1, 0)


def test_another_contributors_record_is_an_exact_duplicate(net: Any, encode: Encode) -> None:
    record = encode(texts(1)[0])
    net.contribute(net.alice, [record])
    answer = net.contribute(net.bob, [record])[0]
    assert (answer.state, answer.rule) == (REJECTED, "exact_duplicate")
    assert isinstance(from_status(answer.status), AlreadyExists)


def test_a_cap_holds_until_a_record_is_withdrawn(make_net: Any, encode: Encode) -> None:
    net = make_net(pb.QualityPolicy(max_records_per_contributor=2))
    records = [encode(text) for text in texts(3)]
    answers = net.contribute(net.alice, records)
    assert [answer.rule for answer in answers] == ["", "", "contributor_cap"]
    assert net.contribute(net.alice, records[2:])[0].already_present
    name = f"{net.name}/records/{digest_hex(answers[0].digest)}"
    net.client("alice").WithdrawRecord(pb.WithdrawRecordRequest(name=name))
    again = net.contribute(net.alice, records[2:])[0]
    assert (again.state, again.already_present) == (ACCEPTED, False)
    assert _counts(net)["alice"] == (2, 0)


def test_contributing_as_someone_else_is_denied(net: Any, encode: Encode, refusal: Refusal) -> None:
    request = pb.ContributeRequest(contributor=net.alice, content=encode(texts(1)[0]))
    assert isinstance(refusal(net.client("bob").Contribute, iter([request])), PermissionDenied)
    admin = net.world.client("root", "admin")
    assert isinstance(refusal(admin.Contribute, iter([request])), PermissionDenied)


def test_the_first_message_must_name_the_contributor(net: Any, refusal: Refusal) -> None:
    refused = refusal(net.client("alice").Contribute, iter([pb.ContributeRequest(content=b"{}")]))
    assert isinstance(refused, InvalidArgument)
    assert refused.metadata["field"] == "contributor"


def test_owning_one_datanet_grants_nothing_in_another(net: Any, encode: Encode, refusal: Refusal) -> None:
    answer = net.contribute(net.alice, [encode(texts(1)[0])])[0]
    record = f"{net.name}/records/{digest_hex(answer.digest)}"
    other = net.world.client("someone", "curator")
    contributor = net.contributor("carol")
    for call, request in (
        (other.SealSnapshot, pb.SealSnapshotRequest(parent=net.name)),
        (other.ListRecords, pb.ListRecordsRequest(parent=net.name)),
        (other.ListContributors, pb.ListContributorsRequest(parent=net.name)),
        (other.WithdrawRecord, pb.WithdrawRecordRequest(name=record)),
        (other.ReviewRecord, pb.ReviewRecordRequest(name=record, decision=ACCEPTED)),
        (
            other.RegisterContributor,
            pb.RegisterContributorRequest(parent=net.name, contributor_id="carol", contributor=contributor),
        ),
    ):
        assert isinstance(refusal(call, request), PermissionDenied)
    assert net.world.client("root", "admin").ListRecords(pb.ListRecordsRequest(parent=net.name)).records


def test_no_token_is_unauthenticated(net: Any, refusal: Refusal) -> None:
    refused = refusal(net.world.anonymous().GetDatanet, pb.GetDatanetRequest(name=net.name))
    assert isinstance(refused, Unauthenticated)


def test_a_person_reviews_records_if_the_policy_requires_it(
    make_net: Any, encode: Encode, refusal: Refusal
) -> None:
    net = make_net(pb.QualityPolicy(review_mode=pb.REVIEW_MODE_MANUAL))
    answers = net.contribute(net.alice, [encode(text) for text in texts(2)])
    assert [answer.state for answer in answers] == [PENDING, PENDING]
    empty = refusal(net.owner.SealSnapshot, pb.SealSnapshotRequest(parent=net.name))
    assert isinstance(empty, FailedPrecondition)
    names = [f"{net.name}/records/{digest_hex(answer.digest)}" for answer in answers]
    accepted = net.owner.ReviewRecord(pb.ReviewRecordRequest(name=names[0], decision=ACCEPTED))
    assert accepted.state == ACCEPTED
    without_reason = pb.ReviewRecordRequest(name=names[1], decision=REJECTED)
    assert isinstance(refusal(net.owner.ReviewRecord, without_reason), InvalidArgument)
    rejected = net.owner.ReviewRecord(
        pb.ReviewRecordRequest(name=names[1], decision=REJECTED, reason="wrong tactic", subject=ABOUT_TEXT)
    )
    assert (rejected.state, rejected.rule, rejected.reason) == (REJECTED, "review", "wrong tactic")
    assert net.contribute(net.bob, [encode(texts(2)[1])])[0].rule == "exact_duplicate"
    assert net.seal().record_count == 1
    assert _counts(net)["alice"] == (1, 1)


def test_a_person_cannot_accept_a_record_that_a_rule_rejected(
    net: Any, encode: Encode, refusal: Refusal
) -> None:
    answer = net.contribute(net.alice, [encode("mail jane.doe@example.com for the report")])[0]
    name = f"{net.name}/records/{digest_hex(answer.digest)}"
    refused = refusal(net.owner.ReviewRecord, pb.ReviewRecordRequest(name=name, decision=ACCEPTED))
    assert isinstance(refused, FailedPrecondition)
    assert refused.metadata["rule"] == "personal_data"


def test_personal_data_is_not_stored(net: Any, encode: Encode) -> None:
    net.contribute(net.alice, [encode("mail jane.doe@example.com for the report"), b'{"jane.doe@a.com": 1}'])
    listed = net.owner.ListRecords(pb.ListRecordsRequest(parent=net.name, state=REJECTED, view=FULL)).records
    assert [record.rule for record in listed] == ["personal_data", "unknown_field"]
    assert not any(b"jane" in record.SerializeToString() for record in listed)


def test_withdrawn_record_leaves_next_snapshot_and_not_the_last(net: Any, encode: Encode) -> None:
    answers = net.contribute(net.alice, [encode(text) for text in texts(2)])
    first = net.seal()
    name = f"{net.name}/records/{digest_hex(answers[0].digest)}"
    withdrawn = net.client("alice").WithdrawRecord(pb.WithdrawRecordRequest(name=name, reason="not ours"))
    assert (withdrawn.state, withdrawn.content) == (WITHDRAWN, b"")
    second = net.seal()
    assert (first.record_count, second.record_count) == (2, 1)
    assert net.owner.GetSnapshot(pb.GetSnapshotRequest(name=first.name)) == first
    assert net.contribute(net.alice, [encode(texts(2)[0])])[0].state == WITHDRAWN


def test_whoever_sends_a_text_first_and_withdraws_it_does_not_keep_its_author_out(
    net: Any, encode: Encode
) -> None:
    squatter, author = net.alice, net.bob
    text = encode(texts(1)[0])
    name = f"{net.name}/records/{digest_hex(net.contribute(squatter, [text])[0].digest)}"
    assert net.contribute(author, [text])[0].rule == "exact_duplicate"
    withdraw = pb.WithdrawRecordRequest(name=name)
    assert net.client("alice").WithdrawRecord(withdraw).rule == "withdrawn"
    accepted = net.contribute(author, [text])[0]
    assert (accepted.state, accepted.rule) == (ACCEPTED, "")
    # The one who withdrew it stays withdrawn, and can neither take it back nor withdraw the author's.
    assert net.contribute(squatter, [text])[0].state == WITHDRAWN
    assert net.client("alice").WithdrawRecord(withdraw).contributor == squatter
    assert [each.contributor for each in net.seal().contributors] == [author]
    counts = {each.name: each for each in _contributors(net)}
    assert (counts[squatter].accepted_count, counts[author].accepted_count) == (0, 1)


def test_a_decision_says_whether_it_is_about_the_text_or_its_contributor(
    net: Any, encode: Encode, refusal: Refusal
) -> None:
    """The two differ in who may send the text again, so neither is a default. A contributor's own withdrawal needs none."""
    name = f"{net.name}/records/{digest_hex(net.contribute(net.alice, [encode(texts(1)[0])])[0].digest)}"
    for call, request in (
        (net.owner.ReviewRecord, pb.ReviewRecordRequest(name=name, decision=REJECTED, reason="not true")),
        (net.owner.WithdrawRecord, pb.WithdrawRecordRequest(name=name)),
    ):
        refused = refusal(call, request)
        assert isinstance(refused, InvalidArgument)
        assert [each.field for each in refused.violations] == ["subject"]
    assert net.client("alice").WithdrawRecord(pb.WithdrawRecordRequest(name=name)).state == WITHDRAWN


@pytest.mark.parametrize("decision", ["rejected", "withdrawn"])
def test_a_decision_about_the_contributor_leaves_the_text_to_its_author(
    net: Any, encode: Encode, refusal: Refusal, decision: str
) -> None:
    squatter, author = net.alice, net.bob
    text = encode(texts(1)[0])
    name = f"{net.name}/records/{digest_hex(net.contribute(squatter, [text])[0].digest)}"
    assert net.contribute(author, [text])[0].rule == "exact_duplicate"
    about = pb.DECISION_SUBJECT_CONTRIBUTOR
    if decision == "rejected":
        request = pb.ReviewRecordRequest(name=name, decision=REJECTED, reason="not theirs", subject=about)
        decided = net.owner.ReviewRecord(request)
        assert net.owner.ReviewRecord(request).rule == "contributor"
        again = refusal(net.owner.ReviewRecord, pb.ReviewRecordRequest(name=name, decision=ACCEPTED))
        assert isinstance(again, FailedPrecondition)
    else:
        decided = net.owner.WithdrawRecord(
            pb.WithdrawRecordRequest(name=name, reason="not theirs", subject=about)
        )
    assert (decided.rule, decided.content) == ("contributor", b"")
    accepted = net.contribute(author, [text])[0]
    assert (accepted.state, accepted.rule) == (ACCEPTED, "")
    assert net.contribute(squatter, [text])[0].rule == "contributor"
    assert [each.contributor for each in net.seal().contributors] == [author]


def test_a_reason_for_a_withdrawal_must_not_quote_the_record(
    net: Any, encode: Encode, refusal: Refusal
) -> None:
    text = texts(1)[0]
    name = f"{net.name}/records/{digest_hex(net.contribute(net.alice, [encode(text)])[0].digest)}"
    refused = refusal(
        net.owner.WithdrawRecord,
        pb.WithdrawRecordRequest(name=name, reason=f"It says: {text}", subject=ABOUT_TEXT),
    )
    assert isinstance(refused, InvalidArgument)
    assert [each.field for each in refused.violations] == ["reason"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("principal", " "),
        ("principal", "\u200b"),
        ("display_name", "\u200b"),
        ("display_name", "a\x1b]0;b\x07"),
    ],
)
def test_names_that_show_nothing_or_command_a_terminal_are_refused(
    net: Any, refusal: Refusal, field: str, value: str
) -> None:
    contributor = net.contributor("carol")
    setattr(contributor, field, value)
    request = pb.RegisterContributorRequest(parent=net.name, contributor_id="carol", contributor=contributor)
    refused = refusal(net.owner.RegisterContributor, request)
    assert isinstance(refused, InvalidArgument)
    assert [each.field for each in refused.violations] == [f"contributor.{field}"]


@pytest.mark.parametrize("value", ["a\u202eb", "\x1b[2J", "\x9b2J", "\u2066a"])
def test_a_description_with_controls_is_refused(net: Any, refusal: Refusal, value: str) -> None:
    definition = pb.Datanet()
    definition.CopyFrom(net.definition)
    definition.description = value
    refused = refusal(
        net.owner.CreateDatanet, pb.CreateDatanetRequest(datanet_id=f"{net.id[:40]}-x", datanet=definition)
    )
    assert isinstance(refused, InvalidArgument)


def test_what_the_owner_withdraws_no_contributor_sends_again(net: Any, encode: Encode) -> None:
    text = encode(texts(1)[0])
    name = f"{net.name}/records/{digest_hex(net.contribute(net.alice, [text])[0].digest)}"
    assert net.owner.WithdrawRecord(pb.WithdrawRecordRequest(name=name, subject=ABOUT_TEXT)).rule == ""
    assert net.contribute(net.bob, [text])[0].rule == "exact_duplicate"
    assert net.contribute(net.alice, [text])[0].state == WITHDRAWN


def test_a_withdrawal_does_not_undo_a_persons_rejection(net: Any, encode: Encode) -> None:
    text = encode(texts(1)[0])
    name = f"{net.name}/records/{digest_hex(net.contribute(net.alice, [text])[0].digest)}"
    net.owner.ReviewRecord(
        pb.ReviewRecordRequest(name=name, decision=REJECTED, reason="not true", subject=ABOUT_TEXT)
    )
    assert net.client("alice").WithdrawRecord(pb.WithdrawRecordRequest(name=name)).state == WITHDRAWN
    assert net.contribute(net.bob, [text])[0].rule == "exact_duplicate"


def _contributors(net: Any) -> list[pb.Contributor]:
    return list(net.owner.ListContributors(pb.ListContributorsRequest(parent=net.name)).contributors)


def test_sealing_an_empty_datanet_is_a_failed_precondition(net: Any, refusal: Refusal) -> None:
    refused = refusal(net.owner.SealSnapshot, pb.SealSnapshotRequest(parent=net.name))
    assert isinstance(refused, FailedPrecondition)
    assert (refused.reason, refused.subject) == ("DATANET_EMPTY", net.name)


def test_a_split_that_trains_on_nothing_is_refused(net: Any, encode: Encode, refusal: Refusal) -> None:
    net.contribute(net.alice, [encode(texts(1)[0])])
    request = pb.SealSnapshotRequest(parent=net.name, held_out_fraction=0.6, control_fraction=0.4)
    assert isinstance(refusal(net.owner.SealSnapshot, request), InvalidArgument)


def test_the_same_seal_request_is_the_same_snapshot(net: Any, encode: Encode) -> None:
    net.contribute(net.alice, [encode(texts(1)[0])])
    first = net.seal(request_id="once")
    net.contribute(net.alice, [encode(texts(2)[1])])
    assert net.seal(request_id="once") == first
    assert net.seal(request_id="twice").name == f"{net.name}/snapshots/2"
    listed = net.owner.ListSnapshots(pb.ListSnapshotsRequest(parent=net.name)).snapshots
    assert [snapshot.name[-1] for snapshot in listed] == ["2", "1"]


def test_a_downloaded_snapshot_proves_its_own_root(net: Any, encode: Encode) -> None:
    net.contribute(net.alice, [encode(text) for text in texts(20)])
    copy = encode(texts(20)[3] + " again")
    assert net.contribute(net.bob, [copy])[0].state == ACCEPTED
    sealed = net.seal()
    records = _download(net, sealed.name, pb.SNAPSHOT_PART_RECORDS)
    manifest = json.loads(_download(net, sealed.name, pb.SNAPSHOT_PART_MANIFEST))
    assert root(records) == sealed.root == manifest["root"]
    assert manifest["records_digest"] == sealed.records_digest
    clusters = {line.record_digest: line.cluster for line in read_lines(records)}
    original = digest_json({"text": texts(20)[3], "tactic": "discovery"})
    assert clusters[digest_json(json.loads(copy))] == original
    assert sealed.near_duplicate_cluster_count == 1
    by_contributor = {count.contributor: count for count in sealed.contributors}
    assert by_contributor[net.bob].original_cluster_count == 0
    addresses = [net.contributor(name).payout_address for name in ("alice", "bob")]
    assert [each["payout_address"] for each in manifest["contributors"]] == addresses


def test_every_change_is_published_as_an_event(net: Any, encode: Encode) -> None:
    answers = net.contribute(net.alice, [encode(texts(1)[0]), b"no record"])
    name = f"{net.name}/records/{digest_hex(answers[0].digest)}"
    sealed = net.seal()
    net.owner.WithdrawRecord(pb.WithdrawRecordRequest(name=name, subject=ABOUT_TEXT))
    published = _events(net, "datanet.contribution.v1", events_pb2.ContributionRecorded, 3)
    assert [(each.state, each.rule) for each in published] == [
        (ACCEPTED, ""),
        (REJECTED, "not_json"),
        (WITHDRAWN, ""),
    ]
    assert published[0].record_digest == answers[0].digest
    snapshot = _events(net, "datanet.snapshot.v1", events_pb2.SnapshotSealed, 1)[0]
    assert [count.contributor for count in sealed.contributors] == [net.alice]
    assert sealed.contributor_count == 1
    # The manifest has contributors and allowed values: an event must not grow with them.
    del sealed.contributors[:]
    for each in net.made.schema.fields:
        del each.allowed_values[:]
    assert (snapshot.snapshot, snapshot.datanet) == (sealed, net.made)


def _events(net: Any, topic: str, kind: Any, count: int) -> list[Any]:
    """The first `count` events of this Datanet on a topic; waits for the publisher."""
    consumer = net.world.service.event_log.consumer(f"test-{net.id}-{topic}", [topic])
    found: list[Any] = []
    try:
        for _ in range(100):
            for record in consumer.poll(0.2, 500):
                if record.key.decode() == net.name:
                    found.append(kind.FromString(record.value))
            if len(found) >= count:
                break
    finally:
        consumer.close()
    assert len(found) == count
    return found


def _download(net: Any, name: str, part: pb.SnapshotPart.ValueType) -> bytes:
    chunks = list(net.owner.DownloadSnapshot(pb.DownloadSnapshotRequest(name=name, part=part)))
    data = b"".join(chunk.data for chunk in chunks)
    assert chunks[0].digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert chunks[0].size == len(data)
    return data


def _counts(net: Any) -> dict[str, tuple[int, int]]:
    listed = net.owner.ListContributors(pb.ListContributorsRequest(parent=net.name)).contributors
    return {each.display_name: (each.accepted_count, each.rejected_count) for each in listed}
