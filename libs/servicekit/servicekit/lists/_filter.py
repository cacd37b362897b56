"""The grammar of AIP-160 filters, as a tree of restrictions.

    expression:  sequence {AND sequence}        factor:  term {OR term}
    sequence:    factor {factor}                term:    [NOT | -] (restriction | "(" expression ")")
    restriction: field (= | != | < | <= | > | >= | :) value

A sequence means AND. Functions, and values without a field, are not supported and refused with a message that names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from servicekit.errors import InvalidArgument

MAX_CHARS = 1024
MAX_RESTRICTIONS = 50
MAX_DEPTH = 20

OPERATORS = ("<=", ">=", "!=", "=", "<", ">", ":")


@dataclass(frozen=True)
class Value:
    """A value as it was written. `open_start` and `open_end` say whether `*` without a backslash was there."""

    text: str
    open_start: bool = False
    open_end: bool = False

    def __str__(self) -> str:
        return "*" * self.open_start + self.text + "*" * (self.open_end and bool(self.text))

    @property
    def anything(self) -> bool:
        """Whether it is `*` alone, which means that the field is present."""
        return self.open_start and not self.text


@dataclass(frozen=True)
class Restriction:
    """`field operator value`."""

    field: str
    operator: str
    value: Value


@dataclass(frozen=True)
class And:
    """All parts hold."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Or:
    """At least one part holds."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Not:
    """The part does not hold."""

    part: Node


Node = Restriction | And | Or | Not


def wrong(message: str, text: str) -> InvalidArgument:
    """Returns the error of a filter."""
    return InvalidArgument("filter", "filter", message, text)


def parse(text: str) -> Node | None:
    """Returns the tree of a filter; None for an empty one.

    Raises:
        InvalidArgument: the text is not a filter. It says at which character, and what would be right there.
    """
    if len(text) > MAX_CHARS:
        raise wrong(f"has {len(text)} characters; at most {MAX_CHARS} are allowed", text)
    if "\0" in text:
        raise wrong("holds a NUL character", text)
    if not text.strip():
        return None
    return _Parser(text).parse()


@dataclass(frozen=True)
class _Token:
    """`kind` is an operator, a parenthesis, a keyword, "-", "text", "quoted" or "end"."""

    kind: str
    text: str
    at: int
    tight: bool
    """Whether no blank precedes it."""


_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<mark><=|>=|!=|[=<>:(),-])
      | (?P<text>(?:[^\s"'\\<>=!:(),-]|\\.)(?:[^\s"'\\<>=!:(),]|\\.)*)""",
    re.VERBOSE | re.DOTALL,
)


def _tokens(text: str) -> Iterator[_Token]:
    at, tight = 0, False
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            if text[at] in "\"'":
                raise wrong(f"the quote at character {at + 1} is not closed", text)
            raise wrong(f"unexpected {text[at]!r} at character {at + 1}", text)
        kind, piece = found.lastgroup or "", found.group()
        if kind == "mark" or (kind == "text" and piece in ("AND", "OR", "NOT")):
            kind = piece
        if kind != "space":
            yield _Token(kind, piece, at, tight)
        at, tight = found.end(), kind != "space"
    yield _Token("end", "", at, False)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0
        self._restrictions = 0

    def parse(self) -> Node:
        tree = self._expression()
        if self._peek().kind != "end":
            raise self._unexpected("AND, OR or the end")
        return tree

    def _expression(self) -> Node:
        parts = [self._sequence()]
        while self._accept("AND"):
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _sequence(self) -> Node:
        parts = [self._factor()]
        while self._peek().kind in ("text", "quoted", "(", "-", "NOT"):
            parts.append(self._factor())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _factor(self) -> Node:
        parts = [self._term()]
        while self._accept("OR"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _term(self) -> Node:
        if self._accept("NOT") or self._accept("-"):
            return Not(self._simple())
        return self._simple()

    def _simple(self) -> Node:
        if not self._accept("("):
            return self._restriction()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise wrong(f"has more than {MAX_DEPTH} parentheses inside each other", self._text)
        inner = self._expression()
        if not self._accept(")"):
            raise self._unexpected("')'")
        self._depth -= 1
        return inner

    def _restriction(self) -> Restriction:
        self._restrictions += 1
        if self._restrictions > MAX_RESTRICTIONS:
            raise wrong(f"has more than {MAX_RESTRICTIONS} comparisons", self._text)
        field = self._peek()
        if field.kind not in ("text", "quoted"):
            raise self._unexpected("a field's name")
        self._next += 1
        operator = self._peek()
        if operator.kind == "(" and operator.tight:
            message = f"function {field.text!r} at character {field.at + 1} is not supported; compare fields with values"
            raise wrong(message, self._text)
        if operator.kind not in OPERATORS or field.kind == "quoted":
            message = (
                f"{field.text} at character {field.at + 1} is alone; write a field, an operator and a value"
            )
            raise wrong(message, self._text)
        self._next += 1
        return Restriction(field.text, operator.kind, self._value())

    def _value(self) -> Value:
        sign = "-" if self._accept("-") else ""
        token = self._peek()
        if token.kind not in ("text", "quoted") or (sign and (token.kind == "quoted" or not token.tight)):
            raise self._unexpected("a value")
        self._next += 1
        after = self._peek()
        if after.kind in OPERATORS:
            raise wrong(
                f"the value before {after.text!r} at character {after.at + 1} must be in quotes",
                self._text,
            )
        raw = token.text[1:-1] if token.kind == "quoted" else sign + token.text
        return _unescape(raw)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _accept(self, kind: str) -> bool:
        if self._peek().kind != kind:
            return False
        self._next += 1
        return True

    def _unexpected(self, expected: str) -> InvalidArgument:
        token = self._peek()
        found = "the end" if token.kind == "end" else repr(token.text)
        return wrong(f"expected {expected} at character {token.at + 1}, found {found}", self._text)


def _unescape(raw: str) -> Value:
    r"""Returns the value of a text. A backslash makes the next character literal: \" \\ \*."""
    open_start = raw.startswith("*")
    body = raw[1:] if open_start else raw
    literal_end = re.search(r"(\\*)\*\Z", body)
    open_end = literal_end is not None and len(literal_end.group(1)) % 2 == 0
    if open_end:
        body = body[:-1]
    return Value(re.sub(r"\\(.)", r"\1", body, flags=re.DOTALL), open_start, open_end)
