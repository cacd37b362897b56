"""A user's own files into a Datanet: rows are read, mapped to fields, checked and sent.

    table = open_table(Path("claims.csv"))
    mapping = FieldMapping.of(schema, table, columns={"text": "report"}, constants={"source": "claims 2025"})
    for row in prepared(table, schema, mapping):   # what would be sent and what refused; nothing is sent
        ...
    Importer(Plan(contributor=..., table=table, schema=schema, mapping=mapping)).run(client.datanet)

CSV, JSON lines, JSON arrays (each also compressed by gzip) and Parquet are read in bounded memory. `docs/data.md` has an example
and the rules; `openledger datanet import` and `suggest` are these functions with options.
"""

from __future__ import annotations

from openledger_client.importing.checking import Prepared, check, prepared
from openledger_client.importing.definition_toml import to_toml
from openledger_client.importing.importer import Importer, Plan, as_json
from openledger_client.importing.mapping import FieldMapping
from openledger_client.importing.preview import rendered
from openledger_client.importing.progress_file import Identity, ProgressFile, Tally
from openledger_client.importing.rows import InputError, NotText, Refusal, Row, Table, place
from openledger_client.importing.suggesting import Suggestion, suggest
from openledger_client.importing.tables import FORMATS, check_chat, open_table

__all__ = [
    "FORMATS",
    "FieldMapping",
    "Identity",
    "Importer",
    "InputError",
    "NotText",
    "Plan",
    "Prepared",
    "ProgressFile",
    "Refusal",
    "Row",
    "Suggestion",
    "Table",
    "Tally",
    "as_json",
    "check",
    "check_chat",
    "open_table",
    "place",
    "prepared",
    "rendered",
    "suggest",
    "to_toml",
]
