"""What the rules and the clusters make of the demo's data: the figures of docs/data.md.

    python bench/data_rules.py

Prints how many of all ATT&CK procedure texts the rules on quality and personal data reject and how many they judge a second,
how the texts cluster at two thresholds, and how many edited copies are found in their original's cluster.
"""

from __future__ import annotations

import random
import time
from collections import Counter

from datanet.definition import DEFAULT_ENTITIES
from datanet.low_quality import low_quality, too_short
from datanet.near_duplicates import Document, cluster
from datanet.personal_data import PersonalData
from threat_intel.attack import Procedure, procedures
from threat_intel.bad_contributors import edited
from threat_intel.vendors import VENDORS, drawn

MIN_WORDS = 4
THRESHOLD = 0.7
PER_VENDOR = 130
COPIES = 1000


def clustered(texts: list[str], threshold: float) -> list[str]:
    """Returns for each text the number of its cluster's earliest member, as text."""
    documents = [Document(str(index), index, text) for index, text in enumerate(texts)]
    found = cluster(documents, threshold)
    return [found[each.digest] for each in documents]


def rules(all_: list[Procedure]) -> None:
    """Prints what the rules reject, and their rate."""
    personal = PersonalData(DEFAULT_ENTITIES)
    personal.find("call +1 415 555 2000")  # loads the recognisers
    begun = time.process_time()
    found = [
        too_short(p.text, MIN_WORDS) or low_quality(p.text) or personal.check("text", p.text) for p in all_
    ]
    took_s = time.process_time() - begun
    by_rule = Counter(each.rule for each in found if each)
    print(
        f"rules: {len(all_):,} texts, rejected {dict(by_rule)}; {len(all_) / took_s:,.0f} a second of one core"
    )


def clusters(all_: list[Procedure]) -> None:
    """Prints the largest cluster at two thresholds."""
    for threshold in (THRESHOLD, 0.5):
        begun = time.process_time()
        sizes = Counter(clustered([p.text for p in all_], threshold))
        took_s = time.process_time() - begun
        largest = max(sizes.values())
        print(
            f"clusters at {threshold}: {len(sizes):,}, the largest of {largest} texts; {took_s:.1f} s of one core"
        )


def copies() -> None:
    """Prints how many edited copies are in their original's cluster."""
    originals = [p for vendor in VENDORS for p in drawn(vendor.id, PER_VENDOR, 0)]
    own = len(set(clustered([p.text for p in originals], THRESHOLD)))
    print(f"originals: {len(originals):,} in {own:,} clusters")
    generator = random.Random("copies")
    copied = originals[:COPIES]
    texts = [p.text for p in originals] + [edited(p, generator).text for p in copied]
    found = clustered(texts, THRESHOLD)
    together = sum(found[index] == found[len(originals) + index] for index in range(len(copied)))
    print(f"edited copies: {together:,} of {len(copied):,} in their original's cluster")


if __name__ == "__main__":
    everything = list(procedures())
    rules(everything)
    clusters(everything)
    copies()
