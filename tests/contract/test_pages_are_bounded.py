"""Every List method answers in pages that are bounded in bytes, and nothing in a request is unbounded.

A list without such a bound fails for everyone as soon as one stranger's items exceed a message: then no smaller page helps.
`servicekit.lists.Listing` requires the size of an item; here every List method must use it.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

import pytest
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from openledger.audit.v1 import audit_pb2

from openledger_testing.every_rpc import METHODS
from openledger_testing.repository import package_folders
from servicekit.lists import Listing

# Regular expressions that match texts of any length: `*`, `+` or `{n,}` that is no literal.
_UNBOUNDED = re.compile(r"(?<!\\)[*+]|\{\d+,\}")


def methods() -> list[MethodDescriptor]:
    """Returns every method of every service, and of the audit API that all of them serve."""
    audit = audit_pb2.DESCRIPTOR.services_by_name["AuditService"]
    return [*METHODS.values(), *audit.methods]


def lists() -> Iterator[MethodDescriptor]:
    """Yields every List method."""
    yield from (method for method in methods() if method.name.startswith("List"))


def fields(
    kind: Descriptor, path: str = "", seen: frozenset[str] = frozenset()
) -> Iterator[tuple[str, FieldDescriptor]]:
    """Yields every field that a request of this type can have, at any depth, with its path."""
    if kind.full_name in seen or kind.full_name.startswith("google.protobuf."):
        return
    for field in kind.fields:
        at = f"{path}.{field.name}".lstrip(".")
        yield at, field
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            yield from fields(field.message_type, at, seen | {kind.full_name})


def unbounded(field: FieldDescriptor) -> list[str]:
    """Returns what a field's rules leave without a bound."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    missing = []
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        missing += [] if rules.map.HasField("max_pairs") else ["max_pairs"]
        missing += _text(key, rules.map.keys) + _text(value, rules.map.values)
    elif field.is_repeated:
        missing += [] if rules.repeated.HasField("max_items") else ["max_items"]
        missing += _text(field, rules.repeated.items)
    else:
        missing += _text(field, rules)
    return missing


def _text(field: FieldDescriptor, rules: validate_pb2.FieldRules) -> list[str]:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return [] if rules.bytes.HasField("max_len") or rules.bytes.HasField("len") else ["max_len of bytes"]
    if field.type != FieldDescriptor.TYPE_STRING:
        return []
    text = rules.string
    if any(text.HasField(name) for name in ("max_len", "max_bytes", "len", "len_bytes", "const")) or getattr(
        text, "in"
    ):
        return []
    return [] if text.pattern and not _UNBOUNDED.search(text.pattern) else ["max_len of string"]


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)
def test_every_text_and_collection_of_a_request_has_a_bound(method: MethodDescriptor) -> None:
    """A field that a service only sends (a name that it sets) has one too: a stranger can fill it in."""
    found = {path: missing for path, field in fields(method.input_type) if (missing := unbounded(field))}
    assert not found


@pytest.mark.parametrize("method", lists(), ids=lambda method: method.name)
def test_a_list_has_pages(method: MethodDescriptor) -> None:
    assert {"page_size", "page_token", "filter", "order_by"} <= set(method.input_type.fields_by_name)
    assert {"next_page_token", "total_size"} <= set(method.output_type.fields_by_name)


@pytest.mark.parametrize("read", [Listing.page, Listing.page_of])
def test_the_size_of_an_item_is_required(read: object) -> None:
    parameter = inspect.signature(read).parameters["bytes_of"]  # type: ignore[arg-type]
    assert parameter.default is inspect.Parameter.empty


def test_there_is_one_bounded_listing_for_each_list_method() -> None:
    """A List method that pages in another way would not be found by its signature, but by the number of listings."""
    found = []
    for folder in package_folders().values():
        for path in folder.rglob("*.py"):
            tree = ast.parse(path.read_text())
            found += [f"{path}:{node.lineno}" for node in ast.walk(tree) if _is_listing(node)]
    assert len(found) >= len(list(lists())), found


def _is_listing(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Listing"
