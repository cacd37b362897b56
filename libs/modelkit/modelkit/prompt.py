"""How a record becomes a prompt and the completion that the model should learn.

A template is two short texts with `{field}` placeholders, named by the digest of its canonical JSON: the trainer
that taught a model, the suite that examined it and the service that serves it must have used the same one.
Records are untrusted, so filling in is plain substitution: no attribute, index, conversion or format
specification is accepted, and a brace inside a record's text stays a brace.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from identity.digest import digest_json
from modelkit.plain_text import Tokenizer, token_ids


class TemplateError(ValueError):
    """A template or record that cannot be rendered; `field` names the placeholder at fault, or is empty."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Encoded:
    """Token ids of one example: `tokens[:completion_start]` is the prompt, the rest is learned or scored."""

    tokens: tuple[int, ...]
    completion_start: int
    truncated: bool
    """Whether the prompt's beginning was dropped to fit."""

    @property
    def completion(self) -> tuple[int, ...]:
        return self.tokens[self.completion_start :]


@dataclass(frozen=True)
class PromptTemplate:
    """For example `PromptTemplate("Report: {text}\\nTactic:", " {tactic}")`."""

    prompt: str
    completion: str

    def __post_init__(self) -> None:
        for text in (self.prompt, self.completion):
            _parts(text)
        if not self.completion:
            raise TemplateError("the completion template is empty: there is nothing to learn")

    @cached_property
    def digest(self) -> str:
        """sha256 of the template's canonical JSON."""
        return digest_json({"kind": "prompt-template", "prompt": self.prompt, "completion": self.completion})

    @cached_property
    def fields(self) -> frozenset[str]:
        """All record fields that the template reads."""
        return frozenset(name for text in (self.prompt, self.completion) for _, name in _parts(text) if name)

    def check_fields(self, known: Collection[str]) -> None:
        """Raises TemplateError when the template reads a field that a record schema does not have."""
        for name in sorted(self.fields - set(known)):
            raise TemplateError(f"the template reads {{{name}}}, but records have only {sorted(known)}", name)

    def render(self, record: Mapping[str, object]) -> tuple[str, str]:
        """(prompt, completion) of one record. Raises TemplateError for a missing field or one that is not
        text."""
        return _fill(self.prompt, record), _fill(self.completion, record)

    def render_prompt(self, record: Mapping[str, object]) -> str:
        """Returns the prompt alone, for a record whose completion the model shall generate."""
        return _fill(self.prompt, record)


def encode(
    template: PromptTemplate,
    tokenizer: Tokenizer,
    record: Mapping[str, object],
    max_tokens: int = 512,
) -> Encoded:
    """Token ids of prompt + completion + end of sequence, at most `max_tokens` of them.

    The end is the only control token: a template's and a record's text are text (`modelkit.plain_text`).

    Prompt and completion are tokenised apart, so that the tokens of an answer are those that generation after
    the same prompt would produce. Too long a prompt loses its beginning: its end carries the question. Raises
    TemplateError when the completion alone does not fit.
    """
    prompt, completion = template.render(record)
    answer = [*token_ids(tokenizer, completion), _end_of_sequence(tokenizer)]
    room = max_tokens - len(answer)
    if room < 1:
        raise TemplateError(f"the completion has {len(answer)} tokens; at most {max_tokens - 1} fit")
    question = token_ids(tokenizer, prompt)
    return Encoded((*question[-room:], *answer), min(len(question), room), len(question) > room)


def _end_of_sequence(tokenizer: Tokenizer) -> int:
    if tokenizer.eos_token_id is None:
        raise TemplateError("the tokenizer has no end-of-sequence token: an answer could never end")
    return int(tokenizer.eos_token_id)


def _parts(text: str) -> list[tuple[str, str]]:
    """Returns pairs of literal text and field name (or ""); `{{` and `}}` are literal braces."""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise TemplateError(f"the template {text!r} is malformed: {error}") from error
    parts = []
    for literal, name, specification, conversion in parsed:
        if name is not None and (not name.isidentifier() or specification or conversion):
            raise TemplateError(f"{{{name}}} must be the plain name of a record's field", name)
        parts.append((literal, name or ""))
    return parts


def _fill(text: str, record: Mapping[str, object]) -> str:
    filled = []
    for literal, name in _parts(text):
        filled.append(literal)
        if not name:
            continue
        if name not in record:
            raise TemplateError(f"the record has no field {name!r}", name)
        value = record[name]
        if not isinstance(value, str):
            raise TemplateError(f"field {name!r} is a {type(value).__name__}; templates take text only", name)
        filled.append(value)
    return "".join(filled)
