"""Records events as bytes, so that later releases prove they still read them (tests/contract/test_recorded_events.py).

    python tools/record_events.py embedded:out/demo/state/events.db tests/contract/recorded/v0.1.0

For every message type of the topic registry two files, each with its reading beside it as JSON:

    <type>.sent.bin     the fullest event of that type in the log, as its producer wrote it
    <type>.whole.bin    the same with every field set that it left unset, at every depth, so that no field goes unseen

A file is what the write-ahead log keeps of a record: headers, key and value. Recordings are made once a release and never
changed: they show what an operator's Kafka may still hold.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from servicekit.eventlog import EventLog, InRecord, OutRecord, open_event_log, topics
from servicekit.eventlog.events import from_record
from servicekit.wal import pack

_GENERATED = Path(__file__).resolve().parents[1] / "proto" / "python"
_GROUP = "record-events"
_SILENT_POLLS = 5


def import_event_modules() -> None:
    """Import every generated module, so that every event type is known."""
    for path in sorted((_GENERATED / "openledger").rglob("*_pb2.py")):
        importlib.import_module(".".join(path.relative_to(_GENERATED).with_suffix("").parts))


def main() -> int:
    """Record the log's events."""
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    import_event_modules()
    log = open_event_log(sys.argv[1])
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    missing = {name for topic in topics.ALL for name in topic.messages}
    for event_type, record in fullest(log).items():
        missing.discard(event_type)
        whole = from_record(record).message
        fill(whole)
        write(folder / f"{event_type}.sent", record)
        write(
            folder / f"{event_type}.whole", replace(record, value=whole.SerializeToString(deterministic=True))
        )
    log.close()
    if missing:
        print(f"the log holds no {', '.join(sorted(missing))}", file=sys.stderr)
    return 1 if missing else 0


def write(stem: Path, record: InRecord) -> None:
    """The record's bytes, and how they read."""
    event = from_record(record)
    kept = OutRecord(record.topic, record.key, record.value, record.headers)
    stem.with_name(stem.name + ".bin").write_bytes(pack(kept))
    stem.with_name(stem.name + ".json").write_text(
        json.dumps(reading(event.message), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    )


def reading(message: Message) -> Any:
    """The message as JSON with proto field names: what a change of a field's number, name or type changes too."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def fullest(log: EventLog) -> dict[str, InRecord]:
    """By type, the event with the longest value."""
    found: dict[str, InRecord] = {}
    for record in _everything(log):
        event_type = dict(record.headers)["ce_type"].decode()
        if event_type not in found or len(record.value) > len(found[event_type].value):
            found[event_type] = record
    return found


def _everything(log: EventLog) -> Iterator[InRecord]:
    consumer = log.consumer(_GROUP, [topic.name for topic in topics.ALL])
    silent = 0
    while silent < _SILENT_POLLS:
        records = consumer.poll(1.0)
        silent = 0 if records else silent + 1
        yield from records
    consumer.close()


def fill(message: Message) -> None:
    """Set every unset field to a value that is not its default; of a oneof whose member is set, only that one."""
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof is not None and message.WhichOneof(oneof.name) not in (None, field.name):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(message, field)
        elif field.is_repeated:
            _fill_list(message, field)
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name))
        elif not getattr(message, field.name):
            setattr(message, field.name, scalar(field))


def _fill_map(message: Message, field: FieldDescriptor) -> None:
    entries, value = getattr(message, field.name), field.message_type.fields_by_name["value"]
    if not entries and value.message_type is None:
        entries[scalar(field.message_type.fields_by_name["key"])] = scalar(value)


def _fill_list(message: Message, field: FieldDescriptor) -> None:
    elements = getattr(message, field.name)
    if field.message_type is None:
        if not elements:
            elements.append(scalar(field))
        return
    for element in elements or [elements.add()]:
        fill(element)


def scalar(field: FieldDescriptor) -> Any:
    """A value that tells this field from the others: made from its number and its name."""
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING and field.type == FieldDescriptor.TYPE_BYTES:
        return field.full_name.encode()
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _text(field.name)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return True
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return field.number + 0.5
    return 1000 + field.number


def _text(name: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()
    if "digest" in name or name in ("root", "top_records"):
        return f"sha256:{digest}"
    if "address" in name or name == "account":
        return "0x5FbDB2315678afecb367f032d93F642f64180aa3"
    if "hash" in name:
        return f"0x{digest}"
    return f"some {name}"


if __name__ == "__main__":
    sys.exit(main())
