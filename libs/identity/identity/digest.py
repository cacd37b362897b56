"""Canonical JSON and digests: the one way in which bytes and values get their names.

Canonical JSON is UTF-8 without whitespace, object keys sorted by code point, every string (keys too) in
Unicode normalisation form C, integers in decimal, floats in the shortest form that reads back to the same
double (Python's `repr`). `1` and `1.0` are different values and get different names. NaN and infinities
have no JSON form and are refused, and so are two keys that become one key under NFC: nothing is dropped
silently.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

_PREFIX = "sha256:"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class NotCanonical(ValueError):
    """A value has no canonical JSON. `path` says where it stands (as `$.a[3]`), `rule` what it breaks."""

    def __init__(self, path: str, rule: str) -> None:
        super().__init__(f"{path}: {rule}")
        self.path = path
        self.rule = rule


class InvalidDigest(ValueError):
    """A text is not a digest of the form `sha256:<64 lower-case hex digits>`."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not a digest; expected sha256:<64 lower-case hex digits>")
        self.text = text


def sha256_bytes(data: bytes) -> str:
    """The digest of bytes, as `sha256:<hex>`."""
    return _PREFIX + hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """The canonical JSON of None, bool, int, float, str, lists, tuples and mappings with str keys.

    Raises NotCanonical, which names the place, for anything else.
    """
    normal = _normalise(value, "$")
    text = json.dumps(normal, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def digest_json(value: object) -> str:
    """The digest of a value's canonical JSON. Raises NotCanonical."""
    return sha256_bytes(canonical_json(value))


def digest_file(path: Path | str) -> str:
    """The digest of a file's bytes, read in blocks."""
    with Path(path).open("rb") as file:
        return _PREFIX + hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(files: Mapping[str, str]) -> str:
    """The digest of a set of files: of the canonical JSON of {name: digest}. Raises InvalidDigest."""
    for digest in files.values():
        digest_to_bytes(digest)
    return digest_json(dict(files))


def is_digest(text: str) -> bool:
    """Whether a text is a digest."""
    return _DIGEST.fullmatch(text) is not None


def digest_to_bytes(digest: str) -> bytes:
    """The 32 bytes that a digest stands for. Raises InvalidDigest."""
    if not is_digest(digest):
        raise InvalidDigest(digest)
    return bytes.fromhex(digest.removeprefix(_PREFIX))


def digest_from_bytes(raw: bytes) -> str:
    """The digest that stands for 32 bytes. Raises InvalidDigest for another length."""
    if len(raw) != 32:
        raise InvalidDigest(raw.hex())
    return _PREFIX + raw.hex()


def digest_hex(digest: str) -> str:
    """The 64 hex digits of a digest, as resource names carry them. Raises InvalidDigest."""
    return digest_to_bytes(digest).hex()


def digest_from_hex(hex_digits: str) -> str:
    """The digest of 64 hex digits out of a resource name. Raises InvalidDigest."""
    digest = _PREFIX + hex_digits
    digest_to_bytes(digest)
    return digest


def _normalise(value: object, path: str) -> Json:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotCanonical(path, f"{value} is not a finite number")
        return value
    if isinstance(value, Mapping):
        return _object(value, path)
    if isinstance(value, list | tuple):
        return [_normalise(item, f"{path}[{index}]") for index, item in enumerate(value)]
    raise NotCanonical(path, f"a {type(value).__name__} has no JSON form")


def _object(value: Mapping[object, object], path: str) -> dict[str, Json]:
    result: dict[str, Json] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise NotCanonical(path, f"key {key!r} is not a string")
        name = _text(key, path)
        if name in result:
            raise NotCanonical(path, f"two keys are both {name!r} in normalisation form C")
        result[name] = _normalise(item, f"{path}.{name}")
    return result


def _text(text: str, path: str) -> str:
    if text.isascii():
        return text
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise NotCanonical(path, "holds a lone surrogate, which UTF-8 cannot carry")
    return unicodedata.normalize("NFC", text)
