"""Of the inference API."""

from __future__ import annotations

COMMANDS = {
    "Generate": "ask models/m prompt",
    "ListServedModels": "served",
}
