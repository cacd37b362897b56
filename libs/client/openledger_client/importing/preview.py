"""Records as a model will read them: a schema's templates, filled in."""

from __future__ import annotations

import string
from collections.abc import Mapping

from openledger.datanet.v1 import datanet_pb2 as pb


def rendered(schema: pb.RecordSchema, record: Mapping[str, str]) -> tuple[str, str]:
    """Returns prompt and completion of a record that has passed `check`."""
    return filled(schema.prompt_template, record), filled(schema.completion_template, record)


def filled(template: str, record: Mapping[str, str]) -> str:
    """Returns a template with the record's values for its `{field}` placeholders; braces within values stay."""
    parts = string.Formatter().parse(template)
    return "".join(text + (record.get(name, "") if name else "") for text, name, _, _ in parts)
