"""Text as tokens that are never control tokens.

A tokenizer turns the text `<|im_end|>` into the token that ends a turn. In a record, a prompt or an answer option that text is
data: its writer must not end a turn, begin one, or end the document. So data is tokenised without the control tokens, and
they come only from the programs that mean them: the end of an example, the start of a document, the chat template of the base.

Control tokens are the added tokens of a tokenizer, whether or not it marks them as special (`<tool_call>` often is not). Added
tokens that consist of white space only compress indentation and are kept.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, Protocol
from weakref import WeakKeyDictionary


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that text needs: services fill templates without torch."""

    eos_token_id: Any

    @property
    def backend_tokenizer(self) -> Any:
        """Returns the tokenizer of the package `tokenizers`."""

    @property
    def apply_chat_template(self) -> Any:
        """Returns the function that renders a conversation as text, or as ids."""


class ControlTokensFromText(ValueError):
    """A tokenizer makes a control token from text even without its added tokens; such a base cannot be used safely."""


class _Plain:
    """A tokenizer without its control tokens."""

    def __init__(self, backend: Any) -> None:
        content = json.loads(backend.to_str())
        added = content["added_tokens"]
        self.control = {int(each["id"]): str(each["content"]) for each in added if each["content"].strip()}
        content |= {"truncation": None, "padding": None}
        # A token outside the vocabulary keeps its number, under a name that nobody can write: the tokens after it keep theirs.
        vocabulary = backend.get_vocab(with_added_tokens=False)
        content["added_tokens"] = [
            {**each, "content": secrets.token_hex(32)} if each["id"] in self.control else each
            for each in added
            if each["id"] not in self.control or each["content"] not in vocabulary
        ]
        self.backend = type(backend).from_str(json.dumps(content))
        unknown = content["model"].get(
            "unk_token"
        )  # stands for characters outside the vocabulary: not control
        for text in self.control.values():
            made = [self.control[token] for token in self.ids(text) if token in self.control]
            if any(token != unknown for token in made):
                raise ControlTokensFromText(f"the text {text!r} becomes the control token {made[0]!r}")

    def ids(self, text: str) -> list[int]:
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return ids


# One copy a tokenizer: to build it takes a tenth of a second for 49,152 entries.
_known: WeakKeyDictionary[Tokenizer, _Plain] = WeakKeyDictionary()


def token_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Returns the ids of `text`: no control token, and none of the special tokens that some tokenizers add around a text.

    Text without the name of a control token has the same ids as with the tokenizer itself. Raises ControlTokensFromText for a
    tokenizer that cannot keep text and control apart.
    """
    return _plain(tokenizer).ids(text)


def chat(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> tuple[str, list[int]]:
    """Returns the prompt of a conversation by the tokenizer's chat template, ready for the answer, and its ids.

    The template writes control tokens; their names in a message are text.
    """
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
    )
    return text, ids


def control_tokens(tokenizer: Tokenizer) -> Mapping[int, str]:
    """Returns the control tokens of a tokenizer: id to name."""
    return _plain(tokenizer).control


def _plain(tokenizer: Tokenizer) -> _Plain:
    found = _known.get(tokenizer)
    if found is None:
        found = _known[tokenizer] = _Plain(tokenizer.backend_tokenizer)
    return found
