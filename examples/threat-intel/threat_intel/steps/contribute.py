"""Step 1: a Datanet is created, contributors stream records, the owner seals a snapshot."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_client import sealing
from openledger_client.downloads import Download
from openledger_client.errors import AlreadyExists
from openledger_client.uploads import contribute
from threat_intel import data
from threat_intel.people import OWNER, TREASURY
from threat_intel.run import DATANET, Outcome, Run

LICENCE = "CC-BY-4.0"
COPIER, CARELESS = "copier", "careless"


@dataclass
class Tally:
    """What became of one contributor's records."""

    states: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    """One message for each rule."""


def execute(run: Run) -> Outcome:
    """Creates, contributes, seals."""
    outcome = Outcome()
    _create(run)
    streams = _streams(run)
    for contributor, title, _ in streams:
        _register(run, contributor, title)
    begun, sent = time.monotonic(), 0
    tallies: dict[str, Tally] = {}
    with run.progress("records", sum(len(records) for _, _, records in streams)) as bar:
        for contributor, _, records in streams:
            tallies[contributor] = _stream(run, contributor, records)
            sent += len(records)
            bar.at(sent, sent if contributor == streams[-1][0] else None, contributor)
    wall_s = time.monotonic() - begun
    accepted = sum(tally.states["accepted"] + tally.states["present already"] for tally in tallies.values())
    for contributor, tally in tallies.items():
        refused = ", ".join(f"{count} {rule}" for rule, count in tally.rules.most_common())
        run.say(
            f"{contributor:14} {tally.states['accepted'] + tally.states['present already']:4} accepted"
            + (f", refused: {refused}" if refused else "")
        )
    for rule, message in tallies[CARELESS].examples.items():
        run.say(f"[dim]careless, {rule}: {message[:110]}[/dim]")
    with run.progress("seal", None) as bar:
        snapshot = sealing.seal(
            run.as_(OWNER).datanet,
            pb.SealSnapshotRequest(
                parent=DATANET,
                held_out_fraction=run.scale.held_out_fraction,
                control_fraction=run.scale.control_fraction,
                request_id=run.journal.request_id("seal"),
            ),
            on_update=lambda update: bar.at(
                update.progress.done, update.progress.total or None, update.progress.stage
            ),
        )
    splits = {split.split: split for split in snapshot.splits}
    run.say(
        f"sealed {snapshot.name}: {snapshot.record_count:,} records in {snapshot.cluster_count:,} clusters, "
        f"{snapshot.near_duplicate_cluster_count} of them near-duplicates; root {snapshot.root}"
    )
    run.say(
        "splits by cluster: " + ", ".join(f"{name} {split.record_count}" for name, split in splits.items())
    )
    figures, source = outcome.figures, f"{snapshot.name} {snapshot.root}"
    figures.add("records sent", sent, "records", "counted")
    figures.add("records accepted", accepted, "records", "counted")
    figures.add(
        "contribution rate", round(sent / wall_s, 1), "records/s", "timed, end to end, one stream at a time"
    )
    figures.add("snapshot records", snapshot.record_count, "records", source)
    figures.add("snapshot clusters", snapshot.cluster_count, "clusters", source)
    figures.add("near-duplicate clusters", snapshot.near_duplicate_cluster_count, "clusters", source)
    for name, split in splits.items():
        figures.add(f"{name} records", split.record_count, "records", source)
    for contributor, tally in tallies.items():
        for rule, count in tally.rules.items():
            figures.add(
                f"refused of {contributor} by {rule}", count, "records", "counted from stream results"
            )
    outcome.facts = {
        "snapshot": snapshot.name,
        "root": snapshot.root,
        "contributors": {c: t for c, t, _ in streams},
        "tallies": {c: {"states": dict(t.states), "rules": dict(t.rules)} for c, t in tallies.items()},
        "counts": {
            c.contributor.rsplit("/", 1)[-1]: [c.record_count, c.original_cluster_count]
            for c in snapshot.contributors
        },
    }
    return outcome


def _streams(run: Run) -> list[tuple[str, str, Sequence[bytes]]]:
    """(contributor, title, records) in the order they arrive: the vendors first, so that copies are copies."""
    scale = run.scale
    found: list[tuple[str, str, Sequence[bytes]]] = []
    for contributor, title in data.contributors():
        found.append((contributor, title, data.records_for(contributor, scale.records_per_vendor, seed=0)))
    found.append(
        (
            COPIER,
            "resubmits others' records, lightly edited",
            data.copier_records(scale.copier_records, seed=0, per_vendor=scale.records_per_vendor),
        )
    )
    gate_items = run.platform.gate_items
    found.append(
        (
            CARELESS,
            "personal data, evaluation items, low quality",
            data.careless_records(scale.careless_records, seed=0, gate_items=gate_items),
        )
    )
    return found


def _create(run: Run) -> None:
    datanet = pb.Datanet(
        display_name="Threat intelligence procedures",
        licence=LICENCE,
        description="How adversaries act, in a sentence or two, and the ATT&CK tactic it serves.",
        schema=pb.RecordSchema(
            fields=[
                pb.RecordSchema.Field(
                    name="text", required=True, max_length=4000, description="The procedure as reported."
                ),
                pb.RecordSchema.Field(
                    name="tactic",
                    required=True,
                    allowed_values=data.TACTICS,
                    description="The tactic it serves.",
                ),
                pb.RecordSchema.Field(
                    name="source", max_length=500, description="The report it is cited from."
                ),
            ],
            prompt_template="Report: {text}\nTactic:",
            completion_template=" {tactic}",
        ),
        policy=pb.QualityPolicy(max_records_per_contributor=5000),
        treasury_address=run.wallet(TREASURY).address,
    )
    _once(
        lambda: run.as_(OWNER).datanet.CreateDatanet(
            pb.CreateDatanetRequest(
                datanet_id=DATANET.split("/")[1],
                datanet=datanet,
                request_id=run.journal.request_id("datanet"),
            ),
            timeout=30,
        )
    )


def _register(run: Run, contributor: str, title: str) -> None:
    details = pb.Contributor(
        principal=contributor,
        display_name=title,
        payout_address=run.wallet(contributor).address,
        consent_licence=LICENCE,
    )
    _once(
        lambda: run.as_(OWNER).datanet.RegisterContributor(
            pb.RegisterContributorRequest(
                parent=DATANET,
                contributor_id=contributor,
                contributor=details,
                request_id=run.journal.request_id(f"who-{contributor}"),
            ),
            timeout=30,
        )
    )


def _once(call: Callable[[], object]) -> None:
    """Calls; an earlier attempt at this step may have created the resource already."""
    with suppress(AlreadyExists):
        call()


def _stream(run: Run, contributor: str, records: Sequence[bytes]) -> Tally:
    name = f"{DATANET}/contributors/{contributor}"

    tally = Tally()
    for response in contribute(run.as_((contributor, ("contributor",))).datanet, name, records):
        state = pb.RecordState.Name(response.state).removeprefix("RECORD_STATE_").lower()
        tally.states["present already" if response.already_present and state == "accepted" else state] += 1
        if response.rule:
            tally.rules[response.rule] += 1
            tally.examples.setdefault(response.rule, response.status.message)
    return tally


def held_out_records(run: Run, snapshot: str) -> list[dict[str, str]]:
    """The snapshot's held-out records, downloaded by its owner."""
    content = Download(
        run.as_(OWNER).datanet.DownloadSnapshot,
        pb.DownloadSnapshotRequest(name=snapshot, part=pb.SNAPSHOT_PART_RECORDS),
    ).read()
    lines = [json.loads(line) for line in content.splitlines()]
    return [line["record"] for line in lines if line["split"] == "held_out"]
