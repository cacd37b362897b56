"""What a Datanet is: the shape of its records, what they must satisfy, who owns it."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime

from servicekit.errors import FieldViolation, InvalidArgument

MAX_RECORD_BYTES = 1 << 20
"""A record's bytes as sent, at most 1 MiB."""

DEFAULT_MAX_LENGTH = 65_536
"""Characters a field may have when the schema does not say."""

SUPPORTED_ENTITIES = ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS")
"""Personal data that can be looked for. IP addresses only where a Datanet asks: some data is about them."""

DEFAULT_ENTITIES = SUPPORTED_ENTITIES[:-1]


@dataclass(frozen=True)
class Field:
    """One key of a record, whose value is a string."""

    name: str
    required: bool = False
    max_length: int = DEFAULT_MAX_LENGTH
    """In characters."""
    allowed_values: tuple[str, ...] = ()
    """Empty allows any."""
    description: str = ""


@dataclass(frozen=True)
class RecordSchema:
    """A flat JSON object of strings, and how it becomes a prompt and a completion."""

    fields: tuple[Field, ...]
    prompt_template: str
    """With `{field}` places; `{{` and `}}` stand for braces."""
    completion_template: str

    def field(self, name: str) -> Field | None:
        """The field of this name, or None."""
        return next((each for each in self.fields if each.name == name), None)

    def prompt_text(self, record: Mapping[str, str]) -> str:
        """The values the prompt shows, one a line: what makes two records near-duplicates or not."""
        return "\n".join(record[name] for name in places(self.prompt_template) if record.get(name))

    def free_text(self, record: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """(field, value) of every value a contributor words freely: the places personal data can stand in."""
        for each in self.fields:
            if not each.allowed_values and record.get(each.name):
                yield each.name, record[each.name]

    def to_json(self) -> dict[str, object]:
        """As it stands in a snapshot's manifest and in the database."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> RecordSchema:
        """The inverse of `to_json`."""
        items = value["fields"]
        assert isinstance(items, list)
        fields = tuple(Field(**{**item, "allowed_values": tuple(item["allowed_values"])}) for item in items)
        return cls(fields, str(value["prompt_template"]), str(value["completion_template"]))

    def violations(self) -> Iterator[FieldViolation]:
        """What is wrong with the schema itself; nothing when it can be used."""
        names = [each.name for each in self.fields]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield FieldViolation("schema.fields", "unique", "a field may be declared once", name)
        for at in ("prompt_template", "completion_template"):
            yield from self._template_violations(f"schema.{at}", getattr(self, at))

    def _template_violations(self, at: str, template: str) -> Iterator[FieldViolation]:
        try:
            used = places(template)
        except ValueError as error:
            yield FieldViolation(at, "template", f"must hold plain {{field}} places only: {error}", template)
            return
        if not used:
            yield FieldViolation(at, "template", "must hold at least one {field} place", template)
        for name in used:
            declared = self.field(name)
            if declared is None:
                yield FieldViolation(at, "template", f"{{{name}}} is not a field", template)
            elif not declared.required:
                yield FieldViolation(at, "template", f"{{{name}}} must be a required field", template)


@dataclass(frozen=True)
class QualityPolicy:
    """What a record must satisfy to be accepted. The defaults are those of the API's zero values."""

    min_words: int = 4
    personal_data_entities: tuple[str, ...] = DEFAULT_ENTITIES
    max_records_per_contributor: int = 0
    """Accepted and pending records of one contributor; 0 means no cap."""
    near_duplicate_threshold: float = 0.7
    """Jaccard similarity, see `datanet.cluster`."""
    gate_items_digest: str = ""
    """Object of evaluation items, see `datanet.contamination`; "" checks none."""
    manual_review: bool = False
    """Whether a person must accept what the rules accept."""

    def to_json(self) -> dict[str, object]:
        """As it stands in a snapshot's manifest and in the database."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> QualityPolicy:
        """The inverse of `to_json`."""
        entities = value["personal_data_entities"]
        assert isinstance(entities, list)
        return cls(**{**value, "personal_data_entities": tuple(entities)})  # type: ignore[arg-type]

    def violations(self) -> Iterator[FieldViolation]:
        """What is wrong with the policy itself; nothing when it can be used."""
        for entity in self.personal_data_entities:
            if entity not in SUPPORTED_ENTITIES:
                message = f"{entity!r} cannot be recognised; supported are {', '.join(SUPPORTED_ENTITIES)}"
                yield FieldViolation("policy.personal_data_entities", "supported", message, entity)


@dataclass(frozen=True)
class Datanet:
    """A collection of records with one schema, one owner and one policy."""

    name: str
    """`datanets/{datanet}`."""
    owner: str
    """The principal that administers it."""
    licence: str
    schema: RecordSchema
    policy: QualityPolicy = field(default_factory=QualityPolicy)
    display_name: str = ""
    description: str = ""
    treasury_address: str = ""
    create_time: datetime | None = None

    def validate(self) -> None:
        """Raises InvalidArgument that names every field that is wrong."""
        violations = [*self.schema.violations(), *self.policy.violations()]
        if not self.licence:
            violations.append(FieldViolation("licence", "required", "must name what contributors consent to"))
        if violations:
            raise InvalidArgument.many(violations)


def places(template: str) -> list[str]:
    """The field names of a template in order, each once.

    Raises ValueError for braces that do not match and for anything but a name between them: a format such as
    `{text.__class__}` or `{text!r:>9}` would reach into the value.
    """
    names: list[str] = []
    for _, name, spec, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if spec or conversion or not name.isidentifier():
            raise ValueError(f"{{{name}}} is not a plain field name")
        if name not in names:
            names.append(name)
    return names
