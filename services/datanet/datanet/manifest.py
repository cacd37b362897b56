"""A snapshot's manifest: everything that anyone needs to verify a snapshot and to pay its contributors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC

from datanet.definition import Datanet
from datanet.entities import Contributor
from datanet.quality import RULE_VERSIONS
from datanet.snapshot import Count, Sealed, SplitRule
from identity.digest import canonical_json

FORMAT = "openledger.snapshot/1"
"""Format identifier; readers check it first."""


def manifest(
    sealed: Sealed,
    *,
    datanet: Datanet,
    number: int,
    rule: SplitRule,
    contributors: Iterable[Contributor],
    rejected: Mapping[str, int],
) -> bytes:
    """Returns the manifest object: canonical JSON without a time of its own.

    Sealing the same records with the same number gives the same digest. `rejected` counts records by rule.
    """
    counts = {count.name: count for count in sealed.contributors}
    return canonical_json(
        {
            "format": FORMAT,
            "datanet": datanet.name,
            "number": number,
            "licence": datanet.licence,
            "schema": datanet.schema.to_json(),
            "policy": datanet.policy.to_json(),
            "rules": RULE_VERSIONS,
            "split": rule.to_json(),
            "root": sealed.root,
            "records_digest": sealed.records_digest,
            "record_count": sealed.record_count,
            "cluster_count": sealed.cluster_count,
            "near_duplicate_cluster_count": sealed.near_duplicate_cluster_count,
            "splits": [
                {"split": count.name, "record_count": count.records, "cluster_count": count.clusters}
                for count in sealed.splits
            ],
            "contributors": [
                _contributor_json(each, counts[each.name])
                for each in sorted(contributors, key=lambda each: each.name)
                if each.name in counts
            ],
            "rejected": [{"rule": rule, "record_count": count} for rule, count in sorted(rejected.items())],
        }
    )


def _contributor_json(contributor: Contributor, count: Count) -> dict[str, object]:
    return {
        "name": contributor.name,
        "principal": contributor.principal,
        "display_name": contributor.display_name,
        "payout_address": contributor.payout_address,
        "consent_licence": contributor.consent_licence,
        "consent_time": contributor.consent_time.astimezone(UTC).isoformat(),
        "record_count": count.records,
        "original_cluster_count": count.clusters,
    }
