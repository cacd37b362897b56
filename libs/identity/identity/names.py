"""Resource names (AIP-122): how everything recorded is called in APIs, events and on the command line.

    >>> str(SnapshotName("threat-intel", 3))
    'datanets/threat-intel/snapshots/3'
    >>> SnapshotName.parse("datanets/threat-intel/snapshots/3").snapshot
    3

A thing has exactly one name: ids are never normalised (no case folding, no leading zeros), they are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import ClassVar, Self, TypeVar


def with_article(noun: str) -> str:
    """`an attribution`, `a batch`."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


class InvalidName(ValueError):
    """A text is not a name of this kind. Carries the text, the kind and the template it should follow."""

    def __init__(self, text: str, kind: str, template: str, rule: str) -> None:
        super().__init__(f"{text!r} is not the name of {with_article(kind)}: {rule}; expected {template}")
        self.text = text
        self.kind = kind
        self.template = template
        self.rule = rule


_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_HEX = re.compile(r"[0-9a-f]{64}")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")

_RULES: dict[str, tuple[re.Pattern[str], str]] = {
    "id": (_ID, "1 to 128 letters, digits, '.', '_' or '-', beginning and ending with a letter or digit"),
    "number": (_NUMBER, "a decimal number without leading zeros"),
    "hex": (_HEX, "64 lower-case hex digits"),
    "ulid": (_ULID, "a ULID: 26 upper-case characters of Crockford's base 32"),
}


@dataclass(frozen=True)
class ResourceName:
    """What all names share. A subclass declares its template: literal segments, and `{field:rule}`."""

    kind: ClassVar[str]
    template: ClassVar[str]

    def __post_init__(self) -> None:
        for field, rule in self._variables():
            self._check(str(self), field, rule, str(getattr(self, field)))

    @property
    def id(self) -> str:
        """The last segment: what tells this resource from the others in its collection."""
        return str(self).rsplit("/", 1)[1]

    def __str__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return "/".join(
            str(values[segment[1:-1].split(":")[0]]) if segment.startswith("{") else segment
            for segment in self.template.split("/")
        )

    @classmethod
    def parse(cls, name: str) -> Self:
        """Returns the name that the text is. Raises InvalidName."""
        segments = name.split("/")
        expected = cls.template.split("/")
        if len(segments) != len(expected):
            raise InvalidName(
                name, cls.kind, cls.pattern(), f"has {len(segments)} segments, not {len(expected)}"
            )
        values: dict[str, str | int] = {}
        for segment, form in zip(segments, expected, strict=True):
            if not form.startswith("{"):
                if segment != form:
                    raise InvalidName(name, cls.kind, cls.pattern(), f"has {segment!r} in place of {form!r}")
                continue
            field, rule = form[1:-1].split(":")
            cls._check(name, field, rule, segment)
            values[field] = int(segment) if rule == "number" else segment
        return cls(**values)

    @classmethod
    def pattern(cls) -> str:
        """The template as people read it: `datanets/{datanet}/snapshots/{snapshot}`."""
        return re.sub(r":\w+}", "}", cls.template)

    @classmethod
    def _variables(cls) -> list[tuple[str, str]]:
        return re.findall(r"{(\w+):(\w+)}", cls.template)

    @classmethod
    def _check(cls, name: str, field: str, rule: str, value: str) -> None:
        pattern, words = _RULES[rule]
        if not pattern.fullmatch(value):
            raise InvalidName(name, cls.kind, cls.pattern(), f"{field} {value!r} must be {words}")


N = TypeVar("N", bound=ResourceName)


def parse_any(text: str, *kinds: type[N]) -> N:
    """Returns the name that the text is, of the first of the kinds whose form it has.

        >>> type(parse_any("baseModels/tiny", ModelVersionName, BaseModelName)).__name__
        'BaseModelName'

    Raises:
        InvalidName: it has the form of none. The error is that of the only kind that shares the text's collection
            ("datanets/"), where there is one, and else names every form.
    """
    errors: list[InvalidName] = []
    for kind in kinds:
        try:
            return kind.parse(text)
        except InvalidName as error:
            errors.append(error)
    collection = text.split("/", 1)[0]
    close = [error for error in errors if error.template.split("/", 1)[0] == collection]
    if len(errors) == 1 or len(close) == 1:
        raise (close or errors)[0]
    raise InvalidName(
        text,
        " or ".join(error.kind for error in errors),
        " or ".join(error.template for error in errors),
        "has another form",
    )


@dataclass(frozen=True)
class DatanetName(ResourceName):
    """A Datanet."""

    kind: ClassVar[str] = "datanet"
    template: ClassVar[str] = "datanets/{datanet:id}"
    datanet: str


@dataclass(frozen=True)
class ContributorName(ResourceName):
    """A contributor to a Datanet."""

    kind: ClassVar[str] = "contributor"
    template: ClassVar[str] = "datanets/{datanet:id}/contributors/{contributor:id}"
    datanet: str
    contributor: str


@dataclass(frozen=True)
class RecordName(ResourceName):
    """A record of a Datanet; `record` is its digest's hex."""

    kind: ClassVar[str] = "record"
    template: ClassVar[str] = "datanets/{datanet:id}/records/{record:hex}"
    datanet: str
    record: str


@dataclass(frozen=True)
class SnapshotName(ResourceName):
    """A sealed snapshot of a Datanet."""

    kind: ClassVar[str] = "snapshot"
    template: ClassVar[str] = "datanets/{datanet:id}/snapshots/{snapshot:number}"
    datanet: str
    snapshot: int


@dataclass(frozen=True)
class SealOperationName(ResourceName):
    """The sealing of a snapshot."""

    kind: ClassVar[str] = "seal operation"
    template: ClassVar[str] = "datanets/{datanet:id}/sealOperations/{operation:ulid}"
    datanet: str
    operation: str


@dataclass(frozen=True)
class BaseModelName(ResourceName):
    """A base model."""

    kind: ClassVar[str] = "base model"
    template: ClassVar[str] = "baseModels/{base_model:id}"
    base_model: str


@dataclass(frozen=True)
class TrainingRunName(ResourceName):
    """A training run."""

    kind: ClassVar[str] = "training run"
    template: ClassVar[str] = "trainingRuns/{training_run:ulid}"
    training_run: str


@dataclass(frozen=True)
class ModelName(ResourceName):
    """A model: a line of versions."""

    kind: ClassVar[str] = "model"
    template: ClassVar[str] = "models/{model:id}"
    model: str


@dataclass(frozen=True)
class ModelVersionName(ResourceName):
    """One version of a model."""

    kind: ClassVar[str] = "model version"
    template: ClassVar[str] = "models/{model:id}/versions/{version:number}"
    model: str
    version: int


@dataclass(frozen=True)
class EvaluationName(ResourceName):
    """One evaluation of a model version."""

    kind: ClassVar[str] = "evaluation"
    template: ClassVar[str] = "evaluations/{evaluation:ulid}"
    evaluation: str


@dataclass(frozen=True)
class PromotionOverrideName(ResourceName):
    """A request to promote a model version against its gate."""

    kind: ClassVar[str] = "promotion override"
    template: ClassVar[str] = "promotionOverrides/{override:ulid}"
    override: str


@dataclass(frozen=True)
class PromotionName(ResourceName):
    """One entry of a model's promotion history, counted from 1."""

    kind: ClassVar[str] = "promotion"
    template: ClassVar[str] = "models/{model:id}/promotions/{promotion:number}"
    model: str
    promotion: int


@dataclass(frozen=True)
class GatePolicyName(ResourceName):
    """A gate policy: a line of versions."""

    kind: ClassVar[str] = "gate policy"
    template: ClassVar[str] = "gatePolicies/{policy:id}"
    policy: str


@dataclass(frozen=True)
class GatePolicyVersionName(ResourceName):
    """One version of a gate policy."""

    kind: ClassVar[str] = "gate policy version"
    template: ClassVar[str] = "gatePolicies/{policy:id}/versions/{version:number}"
    policy: str
    version: int


@dataclass(frozen=True)
class EvaluationReportName(ResourceName):
    """An evaluation report, by its digest's hex."""

    kind: ClassVar[str] = "evaluation report"
    template: ClassVar[str] = "evaluationReports/{report:hex}"
    report: str


@dataclass(frozen=True)
class InferenceName(ResourceName):
    """One answer."""

    kind: ClassVar[str] = "inference"
    template: ClassVar[str] = "inferences/{inference:ulid}"
    inference: str


@dataclass(frozen=True)
class AttributionName(ResourceName):
    """One answer's attribution record; its id is the inference's."""

    kind: ClassVar[str] = "attribution"
    template: ClassVar[str] = "attributions/{inference:ulid}"
    inference: str


@dataclass(frozen=True)
class AttributionIndexName(ResourceName):
    """An attribution index, by its digest's hex."""

    kind: ClassVar[str] = "attribution index"
    template: ClassVar[str] = "attributionIndexes/{index:hex}"
    index: str


@dataclass(frozen=True)
class BatchName(ResourceName):
    """A settlement batch, by its sequence number on chain (from 0)."""

    kind: ClassVar[str] = "batch"
    template: ClassVar[str] = "batches/{seq:number}"
    seq: int


@dataclass(frozen=True)
class RewardRootName(ResourceName):
    """A reward root, by its number (from 1)."""

    kind: ClassVar[str] = "reward root"
    template: ClassVar[str] = "rewardRoots/{reward_root:number}"
    reward_root: int
