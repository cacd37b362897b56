"""A suggested definition as TOML that `openledger datanet create` takes, with a comment for each guess."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

from openledger_client.importing.column import MIN_WORDS, Column
from openledger_client.importing.suggesting import MAX_FIELDS, NO_LICENCE, Suggestion


def to_toml(found: Suggestion) -> str:
    """Returns the definition."""
    return "\n".join([*_head(found), *_schema(found), *_policy(found)]) + "\n"


def _head(found: Suggestion) -> Iterator[str]:
    scope = f"all {found.rows:,} rows" if found.is_whole else f"the first {found.rows:,} rows"
    yield f"# Derived from {scope} of {_comment(found.name)}."
    yield "# Read each line before you create the Datanet: schema and policy never change."
    if found.unreadable:
        yield f"# Rows that cannot be read: {found.unreadable:,}; `openledger datanet import --dry-run` names them."
    for name in found.left_out:
        why = f"it has no text, or is beyond the {MAX_FIELDS} fields that a record may have"
        yield f"# The column {_comment(repr(name))} is left out: {why}."
    title = re.sub(r"[_.-]+", " ", found.name.split(".")[0])[:200]
    yield f"display_name = {_quoted(title)} # a guess from the file's name"
    yield 'description = "" # what the data is, and its purpose'
    unstated = "; NOASSERTION names none: fill it in" if found.licence == NO_LICENCE else ""
    yield f"licence = {_quoted(found.licence)} # contributors consent to exactly this{unstated}"


def _schema(found: Suggestion) -> Iterator[str]:
    prompt, completion = found.prompt.field, found.completion.field
    label = "has few different values" if found.completion.labels else "is another column that no row lacks"
    yield "\n[schema]"
    yield f"# A guess: {prompt!r} has the longest texts, {completion!r} {label}."
    yield "# Write the prompt as the model is to be asked; it may name any required fields."
    template = f"{_title(prompt)}: {{{prompt}}}\n{_title(completion)}:"
    yield f"prompt_template = {_quoted(template)}"
    completed = f" {{{completion}}}"
    yield f"completion_template = {_quoted(completed)}"
    for column in found.columns:
        yield from _field(found, column)


def _field(found: Suggestion, column: Column) -> Iterator[str]:
    option = f"--map {shlex.quote(f'{column.field}={column.name}')}"
    renamed = f" # import it with {_comment(option)}" if column.name != column.field else ""
    yield "\n[[schema.fields]]"
    yield f"name = {_quoted(column.field)}{renamed}"
    empty = found.rows - found.unreadable - column.filled
    if not empty:
        yield "required = true # no row lacks it"
    elif column in (found.prompt, found.completion):
        yield f"required = true # a template needs it; rows that lack it and will be refused: {empty:,}"
    else:
        yield f"required = false # rows that lack it: {empty:,}"
    if labels := column.labels:
        yield f"# {len(labels)} different values in {column.filled:,} rows look like a closed list, which refuses any other."
        yield f"allowed_values = [{', '.join(map(_quoted, labels))}] # delete the line to allow any"
    characters = "character" if column.longest == 1 else "characters"
    yield f"max_length = {column.max_length} # the longest has {column.longest:,} {characters}"


def _policy(found: Suggestion) -> Iterator[str]:
    text = found.prompt
    yield "\n[policy]"
    if text.wordless:
        yield f"# Values of {text.field!r} with fewer than the {MIN_WORDS} words that are needed by default: {text.wordless:,}."
        yield f"min_words = {max(1, text.fewest_words)}"
    yield 'review_mode = "REVIEW_MODE_AUTOMATIC" # REVIEW_MODE_MANUAL: a person accepts each record'


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _quoted(text: str) -> str:
    """Returns a TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    """Returns a text that a comment may hold: of one line, without control characters."""
    return "".join(each if each.isprintable() else " " for each in text)
