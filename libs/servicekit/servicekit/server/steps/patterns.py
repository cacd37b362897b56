"""Says in words what a pattern of the proto files allows: callers read `datanets/{id}`, not a regular expression."""

from __future__ import annotations

import re
from functools import cache

_PARTS = (
    (r"[0-9A-HJKMNP-TV-Z]{26}", "{ulid}", "26 upper-case characters of Crockford's base 32"),
    (
        r"[0-7][0-9A-HJKMNP-TV-Z]{25}",
        "{ulid}",
        "26 upper-case characters of Crockford's base 32, the first from 0 to 7",
    ),
    (
        r"[a-z0-9][a-z0-9.-]{0,62}",
        "{base}",
        "1 to 63 of a-z, 0-9, '.' and '-', beginning with a letter or digit",
    ),
    (
        r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}",
        "{file}",
        "1 to 128 letters, digits, '.', '_' and '-', not beginning with '.' or '-'",
    ),
    (r"[a-z][a-z0-9-]{1,62}", "{id}", "2 to 63 of a-z, 0-9 and '-', beginning with a letter"),
    (r"[a-z][a-z0-9_]{0,62}", "{word}", "1 to 63 of a-z, 0-9 and '_', beginning with a letter"),
    (r"[1-9][0-9]{0,8}", "{number}", "a number from 1 to 999999999"),
    (r"[0-9]{1,18}", "{number}", "a number of at most 18 digits"),
    (r"[0-9a-fA-F]{40}", "{hex}", "40 hex digits"),
    (r"[0-9a-f]{64}", "{hex}", "64 lower-case hex digits"),
)
"""What the patterns are made of: the expression, its placeholder, its words."""


@cache
def in_words(pattern: str) -> str | None:
    """Returns what a pattern allows, e.g. "datanets/{id}, where {id} is 2 to 63 of ..."; None for one of other parts."""
    form, words = pattern.removeprefix("^").removesuffix("$"), []
    for expression, placeholder, meaning in _PARTS:
        if expression in form:
            form = form.replace(expression, placeholder)
            words.append(f"{placeholder} is {meaning}")
    form, empty = re.subn(r"^\(((?:[^()]|\([^()]*\))*)\)\?$", r"\1", form)
    form = re.sub(r"\(([^()]*)\)\?", r"[\1]", form)
    form = re.sub(r"^\(([^()]*)\)$", r"\1", form).replace("|", " or ")
    if re.search(r"[\\+*?^$.]|\[[^/]|\{\d", form):
        return None
    where = f", where {' and '.join(words)}" if words else ""
    return f"{'empty or ' if empty else ''}{form}{where}"
