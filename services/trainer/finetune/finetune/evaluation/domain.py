"""The domain suite: has the model learned what the Datanet teaches? Asked on records it was never trained
on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evalstats.policy import Role
from evalstats.rules import Rule
from finetune.evaluation.item import Item, in_order
from finetune.evaluation.suites import Suite, population, version
from identity.digest import digest_json
from identity.snapshot import SnapshotLine
from modelkit.prompt import PromptTemplate
from modelkit.splits import HELD_OUT, JointSplits
from trainer.contract.evaluation import DOMAIN

MAX_CLASSES = 50
"""With more distinct completions than this, a Datanet holds answers, not classes."""


class EmptyDomainSuite(ValueError):
    """No record may be asked: nothing would be measured."""


@dataclass(frozen=True)
class DomainSource:
    """One snapshot's records and how they become prompts."""

    lines: tuple[SnapshotLine, ...]
    template: PromptTemplate

    def classes(self) -> tuple[str, ...]:
        """Every distinct completion of the snapshot, sorted: the options, if there are few enough."""
        return tuple(sorted({self.template.render(line.record)[1] for line in self.lines}))


def domain_suite(sources: Sequence[DomainSource], seed: int) -> Suite:
    """The held-out records of all sources together, in their order.

    A record is asked when a snapshot holds it out, and none has it, or one of its cluster, as a control: so it was not
    trained on either, see `modelkit.splits`.
    Where completions are classes (2 to MAX_CLASSES distinct ones in each source) the model chooses among them
    by log-likelihood; otherwise the right completion's bits per byte are measured. Raises EmptyDomainSuite,
    or TemplateError for a record that lacks a field of the template.
    """
    classes = [source.classes() for source in sources]
    choice = all(2 <= len(options) <= MAX_CLASSES for options in classes)
    splits = JointSplits(source.lines for source in sources)
    items = [
        _item(line, splits.cluster(line.record_digest), source.template, options if choice else None)
        for source, options in zip(sources, classes, strict=True)
        for line in source.lines
        if line.split == HELD_OUT and splits.askable(line.record_digest)
    ]
    # Two snapshots of one Datanet share records; each is asked once.
    unique = {item.id: item for item in items}
    if not unique:
        raise EmptyDomainSuite(
            "the snapshots have no held-out record to ask that is not a control in another of them"
        )
    rule = Rule.ACC if choice else Rule.BITS_PER_BYTE
    ordered, template = in_order(list(unique.values()), seed), _template_digest(sources)
    return Suite(
        name=DOMAIN,
        role=Role.DOMAIN,
        rule=rule,
        version=version(DOMAIN, template, ordered),
        template_digest=template,
        items=ordered,
        available=len(ordered),
        seed=seed,
        population=population(ordered),
    )


def _item(
    line: SnapshotLine, cluster: str, template: PromptTemplate, classes: tuple[str, ...] | None
) -> Item:
    prompt, completion = template.render(line.record)
    if classes is None:
        return Item(id=line.record_digest, cluster=cluster, prompt=prompt, options=(completion,), gold=0)
    return Item(
        id=line.record_digest,
        cluster=cluster,
        prompt=prompt,
        options=classes,
        gold=classes.index(completion),
    )


def _template_digest(sources: Sequence[DomainSource]) -> str:
    digests = sorted({source.template.digest for source in sources})
    return (
        digests[0] if len(digests) == 1 else digest_json({"kind": "prompt-templates", "templates": digests})
    )
