"""The same records make the same snapshot; a cluster is never torn apart."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datanet import manifest
from datanet.definition import Datanet
from datanet.entities import Contributor
from datanet.seal_steps import seal as seal_in
from datanet.snapshot import CONTROL, HELD_OUT, TRAIN, AcceptedRecord, Sealed, SplitRule
from identity.digest import canonical_json, sha256_bytes
from identity.snapshot import read_lines, root
from servicekit.errors import InvalidArgument
from servicekit.objects import ObjectStore

pytestmark = pytest.mark.slow

RULE = SplitRule("salt", 0.3, 0.2)
_TEXT = "the group used a loader to run tasks on hosts and sent files over web mail at night by hand"
_WORDS = _TEXT.split()


@dataclass(frozen=True)
class Made:
    """A sealed set and the bytes of its records object."""

    sealed: Sealed
    data: bytes


def seal(made: Iterable[AcceptedRecord], datanet: Datanet, rule: SplitRule) -> Made:
    """Seals records, which may be in any order, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        objects = ObjectStore(Path(folder) / "objects")
        ordered = sorted(made, key=lambda record: record.order)
        sealed = seal_in(
            lambda: ordered, datanet, rule, folder=Path(folder), objects=objects, progress=lambda *_: None
        )
        assert sealed is not None
        return Made(sealed, objects.get_bytes(sealed.records_digest))


def records(count: int, seed: int = 0, copies: bool = True) -> list[AcceptedRecord]:
    """Random words by three contributors; each third record is its predecessor and one word."""
    generator = random.Random(seed)
    made: list[AcceptedRecord] = []
    text = ""
    for order in range(count):
        copy = copies and order % 3 == 2
        text = text + " again" if copy else " ".join(generator.choices(_WORDS, k=14)) + f" {order}"
        content = canonical_json({"text": text, "tactic": "discovery"})
        name = f"datanets/threat-intel/contributors/c{generator.randrange(3)}"
        made.append(AcceptedRecord(sha256_bytes(content), order, name, content))
    return made


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_same_records_in_any_order_have_the_same_root(
    datanet: Datanet, count: int, seed: int, shuffle: random.Random
) -> None:
    made = records(count, seed)
    shuffled = list(made)
    shuffle.shuffle(shuffled)
    assert seal(shuffled, datanet, RULE) == seal(made, datanet, RULE)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(0, 1000), st.text(max_size=5))
def test_no_cluster_stands_in_two_splits(datanet: Datanet, count: int, seed: int, salt: str) -> None:
    made = records(count, seed)
    splits: dict[str, set[str]] = {}
    for line in read_lines(seal(made, datanet, replace(RULE, salt=salt)).data):
        splits.setdefault(line.cluster, set()).add(line.split)
    assert all(len(each) == 1 for each in splits.values())


def test_counts_are_those_of_the_lines(datanet: Datanet) -> None:
    made = records(300)
    made_set = seal(made, datanet, RULE)
    sealed = made_set.sealed
    lines = list(read_lines(made_set.data))
    assert sealed.record_count == len(lines) == 300
    assert sealed.cluster_count == len({line.cluster for line in lines}) == 200
    assert sealed.near_duplicate_cluster_count == 100
    assert [count.name for count in sealed.splits] == [TRAIN, HELD_OUT, CONTROL]
    for count in sealed.splits:
        assert count.records == sum(line.split == count.name for line in lines)
    assert sum(count.records for count in sealed.contributors) == 300
    assert sum(count.clusters for count in sealed.contributors) == 200


def test_a_copy_stays_and_its_cluster_belongs_to_the_earliest(datanet: Datanet) -> None:
    made = records(3)
    copied = [replace(made[1], contributor="original"), replace(made[2], contributor="copier"), made[0]]
    made_set = seal(copied, datanet, RULE)
    sealed = made_set.sealed
    by_name = {count.name: count for count in sealed.contributors}
    assert (by_name["copier"].records, by_name["copier"].clusters) == (1, 0)
    assert (by_name["original"].records, by_name["original"].clusters) == (1, 1)


def test_splits_have_the_fractions_asked_for(datanet: Datanet) -> None:
    made_set = seal(records(3000, copies=False), datanet, RULE)
    sealed = made_set.sealed
    shares = {count.name: count.clusters / sealed.cluster_count for count in sealed.splits}
    # Four standard deviations of a binomial share at this size are 0.037.
    assert shares[HELD_OUT] == pytest.approx(0.3, abs=0.037)
    assert shares[CONTROL] == pytest.approx(0.2, abs=0.037)


def test_a_cluster_keeps_its_split_when_records_are_added(datanet: Datanet) -> None:
    made = records(200)
    before = {line.record_digest: line.split for line in read_lines(seal(made[:100], datanet, RULE).data)}
    after = {line.record_digest: line.split for line in read_lines(seal(made, datanet, RULE).data)}
    assert before.items() <= after.items()


def test_another_salt_deals_otherwise(datanet: Datanet) -> None:
    made = records(100)
    assert (
        seal(made, datanet, RULE).sealed.root != seal(made, datanet, replace(RULE, salt="pepper")).sealed.root
    )


def test_the_root_of_a_known_set_is_pinned(datanet: Datanet) -> None:
    made_set = seal(records(10), datanet, RULE)
    sealed = made_set.sealed
    assert sealed.root == root(made_set.data)
    assert sealed.root == "sha256:39a4988b4e441acb52558c3d10c86b0bfcee1fd0be2eded8dc1eacbbf106e9fb"


@pytest.mark.parametrize(("held_out", "control"), [(0.5, 0.5), (0.9, 0.2)])
def test_fractions_that_leave_nothing_to_train_on_are_refused(held_out: float, control: float) -> None:
    with pytest.raises(InvalidArgument, match="below 1"):
        SplitRule("s", held_out, control).validate()


def test_the_manifest_names_all_that_a_stranger_needs(datanet: Datanet) -> None:
    made_set = seal(records(30), datanet, RULE)
    sealed = made_set.sealed
    contributors = [_contributor(f"c{number}") for number in range(4)]
    data = manifest.manifest(
        sealed, datanet=datanet, number=3, rule=RULE, contributors=contributors, rejected={"low_quality": 2}
    )
    value = json.loads(data)
    assert data == canonical_json(value)
    assert (value["number"], value["root"], value["records_digest"]) == (
        3,
        sealed.root,
        sealed.records_digest,
    )
    assert [each["name"][-2:] for each in value["contributors"]] == ["c0", "c1", "c2"]
    assert value["contributors"][0]["payout_address"] == "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    assert value["schema"]["prompt_template"] == "Report: {text}\nTactic:"
    assert value["split"] == {"salt": "salt", "held_out_fraction": 0.3, "control_fraction": 0.2}
    assert value["rejected"] == [{"rule": "low_quality", "record_count": 2}]


def test_clusters_are_those_of_the_text_alone(datanet: Datanet) -> None:
    """Two records with one text and two labels are near-duplicates: they must not be in two splits."""
    contents = [
        canonical_json({"text": " ".join(_WORDS), "tactic": tactic}) for tactic in ("discovery", "execution")
    ]
    made = [
        AcceptedRecord(sha256_bytes(content), order, "c", content) for order, content in enumerate(contents)
    ]
    assert seal(made, datanet, RULE).sealed.cluster_count == 1


def _contributor(contributor: str) -> Contributor:
    name = f"datanets/threat-intel/contributors/{contributor}"
    address = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    return Contributor(
        name=name,
        principal=contributor,
        display_name=contributor.upper(),
        payout_address=address,
        consent_licence="CC-BY-4.0",
        consent_time=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize("step", ["copy", "sketch", "cluster", "write"])
def test_a_sealing_that_was_killed_continues_with_the_records_it_began_with(
    datanet: Datanet, tmp_path: Path, step: str
) -> None:
    objects = ObjectStore(tmp_path / "objects")
    folder = tmp_path / "work"
    folder.mkdir()
    seen: list[str] = []

    class Killed(Exception):
        pass

    def attempt(made: list[AcceptedRecord], end_in: str) -> Sealed | None:
        def progress(at: str, done: int, total: int) -> None:
            seen.append(at)
            if at == end_in:
                raise Killed

        return seal_in(lambda: made, datanet, RULE, folder=folder, objects=objects, progress=progress)

    with pytest.raises(Killed):
        attempt(records(30), step)
    seen.clear()
    sealed = attempt(records(30) if step == "copy" else records(10), "")
    assert sealed == seal(records(30), datanet, RULE).sealed
    assert seen[0] == step
