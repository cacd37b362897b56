"""Strangers' text is tokenised in one place, where no control token can come from it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_TOKENISING = re.compile(
    r"tokenizer\.(encode|tokenize|batch_encode_plus|encode_plus|encode_batch)\(|\.encode_batch\(|apply_chat_template\("
    # A tokenizer that is called: not its definition, and not a function or method of that name.
    r"|(?<!def )(?:(?<![\w.])|(?<=\._))tokenizer\([^)]"
)
ALLOWED = {
    "libs/modelkit/modelkit/plain_text.py",
    # Tokenises texts that are constants of it, by a folder that it wrote; the CLI may not import modelkit.
    "cli/openledger_cli/model_export/merge.py",
}


def test_the_search_finds_what_it_is_for() -> None:
    for line in (
        "ids = tokenizer(text)",
        "self._tokenizer(text)",
        "tokenizer.encode(text)",
        "backend.encode_batch(x)",
    ):
        assert _TOKENISING.search(line)
    for line in (
        "def tokenizer(self, x)",
        "tokenizer().save()",
        "models.tokenizer(digest)",
        "load_tokenizer(path)",
    ):
        assert not _TOKENISING.search(line)


def test_only_one_module_tokenises_strangers_text() -> None:
    found = {
        str(path.relative_to(ROOT))
        for folder in ("libs", "services", "cli", "ops", "examples")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "tests" not in path.relative_to(ROOT).parts and _TOKENISING.search(path.read_text("utf-8"))
    }
    assert found == ALLOWED, "use modelkit.plain_text"
