"""What a Datanet is: the schema of its records, the policy they must satisfy, its owner."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import lru_cache

from identity.folding import is_blank
from servicekit.errors import FieldViolation, InvalidArgument

MAX_RECORD_BYTES = 1 << 20
"""A record's bytes as sent, at most 1 MiB."""

DEFAULT_MAX_LENGTH = 65_536
"""Maximum characters of a field if the schema does not say."""

SUPPORTED_ENTITIES = (
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "CREDIT_CARD",
    "IBAN_CODE",
    "US_SSN",
    "NATIONAL_ID",
    "SECRET",
    "IP_ADDRESS",
)
"""Personal data and secrets that can be detected. IP addresses only where a Datanet asks for it: some data is about them."""

DEFAULT_ENTITIES = SUPPORTED_ENTITIES[:-1]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One key of a record. Its value is a string."""

    name: str
    required: bool = False
    max_length: int = DEFAULT_MAX_LENGTH
    """In characters."""
    allowed_values: tuple[str, ...] = ()
    """Empty allows any."""
    description: str = ""


@dataclass(frozen=True)
class RecordSchema:
    """The fields of a record, and the templates that turn it into a prompt and a completion."""

    fields: tuple[Field, ...]
    prompt_template: str
    """With `{field}` placeholders; `{{` and `}}` are literal braces."""
    completion_template: str

    def field(self, name: str) -> Field | None:
        """Returns the field of this name, or None."""
        return next((each for each in self.fields if each.name == name), None)

    def prompt_text(self, record: Mapping[str, str]) -> str:
        """Returns the values that the prompt contains, one per line: near-duplicates are judged by this text."""
        return "\n".join(record[name] for name in template_fields(self.prompt_template) if record.get(name))

    def free_text(self, record: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Yields (field, value) of every free-text value: where personal data can occur."""
        for each in self.fields:
            if not each.allowed_values and record.get(each.name):
                yield each.name, record[each.name]

    def texts_as_trained(self, record: Mapping[str, str]) -> list[tuple[str, str]]:
        """Returns `free_text` in the order in which a model reads it: the prompt's, the completion's, then all other fields'."""
        used = template_fields(self.prompt_template) + template_fields(self.completion_template)
        places = {name: place for place, name in reversed(list(enumerate(used)))}
        return sorted(self.free_text(record), key=lambda text: places.get(text[0], len(used)))

    def to_json(self) -> dict[str, object]:
        """Returns the JSON form that the database and a snapshot's manifest contain."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> RecordSchema:
        """Returns the inverse of `to_json`."""
        items = value["fields"]
        assert isinstance(items, list)
        fields = tuple(Field(**{**item, "allowed_values": tuple(item["allowed_values"])}) for item in items)
        return cls(fields, str(value["prompt_template"]), str(value["completion_template"]))

    def violations(self) -> Iterator[FieldViolation]:
        """Yields the faults of the schema; none if it can be used."""
        names = [each.name for each in self.fields]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield FieldViolation("schema.fields", "unique", "each field must be declared once", name)
        for at in ("prompt_template", "completion_template"):
            yield from self._template_violations(f"schema.{at}", getattr(self, at))

    def _template_violations(self, at: str, template: str) -> Iterator[FieldViolation]:
        try:
            used = template_fields(template)
        except ValueError as error:
            yield FieldViolation(
                at, "template", f"must contain only plain {{field}} placeholders: {error}", template
            )
            return
        if not used:
            yield FieldViolation(at, "template", "must contain at least one {field} placeholder", template)
        for name in used:
            declared = self.field(name)
            if declared is None:
                yield FieldViolation(at, "template", f"{{{name}}} is not a field", template)
            elif not declared.required:
                yield FieldViolation(at, "template", f"{{{name}}} must be a required field", template)


@dataclass(frozen=True, kw_only=True)
class QualityPolicy:
    """What a record must satisfy to be accepted. The API's zero values mean these defaults."""

    min_words: int = 4
    personal_data_entities: tuple[str, ...] = DEFAULT_ENTITIES
    max_records_per_contributor: int = 0
    """Accepted and pending records of one contributor; 0 means no cap."""
    near_duplicate_threshold: float = 0.7
    """Jaccard similarity, see `datanet.near_duplicates`."""
    gate_items_digest: str = ""
    """Object of the promotion gate's evaluation items, see `datanet.contamination`; "" in a request means the service's."""
    contamination_check: bool = True
    """Whether records are checked for these items. The view and the manifest say so."""
    manual_review: bool = False
    """Whether a person must accept each record that the rules accept."""

    def to_json(self) -> dict[str, object]:
        """Returns the JSON form that the database and a snapshot's manifest contain."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> QualityPolicy:
        """Returns the inverse of `to_json`."""
        entities = value["personal_data_entities"]
        assert isinstance(entities, list)
        # The first release checked where a digest was given.
        checked = {"contamination_check": bool(value["gate_items_digest"])}
        return cls(**{**checked, **value, "personal_data_entities": tuple(entities)})  # type: ignore[arg-type]

    def violations(self) -> Iterator[FieldViolation]:
        """Yields the faults of the policy; none if it can be used."""
        for entity in self.personal_data_entities:
            if entity not in SUPPORTED_ENTITIES:
                message = f"{entity!r} cannot be recognised; supported are {', '.join(SUPPORTED_ENTITIES)}"
                yield FieldViolation("policy.personal_data_entities", "supported", message, entity)
        if self.gate_items_digest and not self.contamination_check:
            message = "names items although contamination_check is off: leave one of them out"
            yield FieldViolation("policy.gate_items_digest", "contamination_check", message)


@dataclass(frozen=True, kw_only=True)
class Datanet:
    """A collection of records with one schema, one owner and one policy."""

    name: str
    """`datanets/{datanet}`."""
    owner: str
    """The principal that created and administers it."""
    licence: str
    schema: RecordSchema
    policy: QualityPolicy = field(default_factory=QualityPolicy)
    display_name: str = ""
    description: str = ""
    treasury_address: str = ""
    create_time: datetime | None = None

    def validate(self) -> None:
        """Raises InvalidArgument that names every wrong field."""
        violations = [*self.schema.violations(), *self.policy.violations()]
        if is_blank(self.licence):
            violations.append(
                FieldViolation("licence", "required", "must name the licence that contributors consent to")
            )
        if violations:
            raise InvalidArgument.many(violations)


def template_fields(template: str) -> list[str]:
    """Returns the field names of a template in order, each once.

    Raises ValueError for unbalanced braces, and for anything but a name between them: a format such as
    `{text.__class__}` or `{text!r:>9}` would give access to attributes of the value.
    """
    return list(_template_fields(template))


@lru_cache(1000)
def _template_fields(template: str) -> tuple[str, ...]:
    names: list[str] = []
    for _, name, spec, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if spec or conversion or not name.isidentifier():
            raise ValueError(f"{{{name}}} is not a plain field name")
        if name not in names:
            names.append(name)
    return tuple(names)
