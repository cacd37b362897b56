"""The domain suite: has the model learned what the Datanet teaches? Asked on records it was never trained
on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evalstats.gate import Role
from evalstats.rules import Rule
from identity.digest import digest_json
from identity.snapshot import SnapshotLine
from modelkit.prompt import PromptTemplate
from trainer.evaluation.item import Item, choose
from trainer.evaluation.suites import DOMAIN, Suite

HELD_OUT = "held_out"
"""The split of a snapshot that is never trained on; datanet puts whole near-duplicate clusters in one
split."""

MAX_CLASSES = 50
"""With more distinct completions than this, a Datanet holds answers, not classes."""


class EmptyDomainSuite(ValueError):
    """No snapshot has a held-out record: nothing would be measured."""


@dataclass(frozen=True)
class DomainSource:
    """One snapshot's records and how they become prompts."""

    lines: tuple[SnapshotLine, ...]
    template: PromptTemplate

    def classes(self) -> tuple[str, ...]:
        """Every distinct completion of the snapshot, sorted: the options, if there are few enough."""
        return tuple(sorted({self.template.render(line.record)[1] for line in self.lines}))


def domain_suite(sources: Sequence[DomainSource], count: int, seed: int) -> Suite:
    """A sample of held-out records of all sources together.

    Where completions are classes (2 to MAX_CLASSES distinct ones in each source) the model chooses among them
    by log-likelihood; otherwise the right completion's bits per byte are measured. Raises EmptyDomainSuite,
    or TemplateError for a record that lacks a field of the template.
    """
    classes = [source.classes() for source in sources]
    choice = all(2 <= len(options) <= MAX_CLASSES for options in classes)
    items = [
        _item(line, source.template, options if choice else None)
        for source, options in zip(sources, classes, strict=True)
        for line in source.lines
        if line.split == HELD_OUT
    ]
    # Two snapshots of one Datanet share records; each is asked once.
    unique = {item.id: item for item in items}
    if not unique:
        raise EmptyDomainSuite("the snapshots have no held-out record to ask")
    rule = Rule.CHOICE_SUM if choice else Rule.BITS_PER_BYTE
    chosen = tuple(choose(list(unique.values()), count, seed))
    return Suite(DOMAIN, Role.DOMAIN, rule, "1", _template_digest(sources), chosen)


def _item(line: SnapshotLine, template: PromptTemplate, classes: tuple[str, ...] | None) -> Item:
    prompt, completion = template.render(line.record)
    if classes is None:
        return Item(line.record_digest, line.cluster, prompt, (completion,), 0)
    return Item(line.record_digest, line.cluster, prompt, classes, classes.index(completion))


def _template_digest(sources: Sequence[DomainSource]) -> str:
    digests = sorted({source.template.digest for source in sources})
    return (
        digests[0] if len(digests) == 1 else digest_json({"kind": "prompt-templates", "templates": digests})
    )
