"""What a suite is, and the four that every tuned model meets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from evalstats.gate import Role
from evalstats.report import SuiteRecord
from evalstats.rules import Rule
from identity.digest import digest_json, sha256_bytes
from modelkit.prompt import PromptTemplate
from trainer.evaluation.item import Item, choose, items_json
from trainer.evaluation.packaged import arc_easy, english_texts, hellaswag

DOMAIN = "domain"


@dataclass(frozen=True)
class Suite:
    """Items, the template they were written with, the rule that makes a value of log-likelihoods, and a
    version."""

    name: str
    role: Role
    rule: Rule
    version: str
    """Raised when the way items are made changes."""
    template_digest: str
    items: tuple[Item, ...]

    @cached_property
    def items_object(self) -> bytes:
        return items_json(self.items)

    @cached_property
    def items_digest(self) -> str:
        return sha256_bytes(self.items_object)

    @cached_property
    def digest(self) -> str:
        """The suite's name everywhere: the same digest asks the same questions and counts them alike."""
        return digest_json(
            {
                "kind": "evaluation-suite",
                "name": self.name,
                "rule": self.rule.value,
                "version": self.version,
                "template": self.template_digest,
                "items": self.items_digest,
            }
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
        )


@dataclass(frozen=True)
class RetainedSuite:
    """A public benchmark that stands for an ability of the base."""

    name: str
    rule: Rule
    template: PromptTemplate
    """How its items were written; recorded by digest."""
    source: Callable[[], Sequence[Item]]
    default_items: int
    default_margin: float

    def sample(self, count: int, seed: int) -> Suite:
        """The suite with a sample of `count` items. Raises SuiteUnavailable."""
        items = tuple(choose(self.source(), count, seed))
        return Suite(self.name, Role.RETAINED, self.rule, "1", self.template.digest, items)


RETAINED = {
    suite.name: suite
    for suite in (
        RetainedSuite(
            "hellaswag",
            Rule.CHOICE_PER_BYTE,
            PromptTemplate("{activity}: {context}", " {ending}"),
            hellaswag,
            default_items=100,
            default_margin=0.05,
        ),
        RetainedSuite(
            "arc_easy",
            Rule.CHOICE_PER_BYTE,
            PromptTemplate("Question: {question}\nAnswer:", " {option}"),
            arc_easy,
            default_items=100,
            default_margin=0.05,
        ),
        RetainedSuite(
            "bits_per_byte",
            Rule.BITS_PER_BYTE,
            PromptTemplate("", "{text}"),
            english_texts,
            default_items=100,
            default_margin=0.05,
        ),
    )
}
"""By name. Margins are in the suite's unit: a share of right answers, or bits per byte."""

DEFAULT_DOMAIN_ITEMS = 150
DEFAULT_DOMAIN_MARGIN = 0.0
"""The gain that a domain suite must exceed."""

SUITE_NAMES = (DOMAIN, *RETAINED)
