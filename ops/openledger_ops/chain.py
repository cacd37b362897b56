"""Reads an EVM chain by JSON-RPC: what the contracts hold, nothing more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from identity.keccak import keccak256
from servicekit.http_client import HttpClient, HttpError, shown

_TIMEOUT_S = 20.0
_MAX_ANSWER_BYTES = 64 << 20
_WORD = 32
_LONGEST_MESSAGE = 300

Argument = int | bytes


class ChainError(Exception):
    """The node does not answer, or answers with an error."""


class Node:
    """A chain's node."""

    def __init__(self, url: str, timeout_s: float = _TIMEOUT_S) -> None:
        self.url = url
        self.shown = shown(url)
        """The address without keys, for people."""
        self._client = HttpClient(timeout_s, _MAX_ANSWER_BYTES)

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()

    def ask(self, method: str, *parameters: Any) -> Any:
        """Returns the result of a JSON-RPC method. Raises ChainError."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        try:
            response = self._client.exchange("POST", self.url, json=request)
            if response.status != HTTPStatus.OK:
                raise ChainError(f"{self.shown} answers {response.status}")
            answer = json.loads(response.body)
            if "error" in answer:
                said = str(answer["error"].get("message", answer["error"]))[:_LONGEST_MESSAGE]
                raise ChainError(f"{self.shown} refuses {method}: {said}")
            return answer["result"]
        except HttpError as error:
            raise ChainError(f"{self.shown} does not answer {method}: {error.reason}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ChainError(
                f"{self.shown} does not answer {method} as a chain does: {str(error) or type(error).__name__}"
            ) from None

    def chain_id(self) -> int:
        """Returns the chain's id. Raises ChainError."""
        return _number(self.ask("eth_chainId"))

    def block_number(self) -> int:
        """Returns the number of the newest block. Raises ChainError."""
        return _number(self.ask("eth_blockNumber"))

    def has_code(self, address: str) -> bool:
        """Whether a contract exists at an address. Raises ChainError."""
        return self.ask("eth_getCode", address, "latest") not in ("", "0x", None)

    def view(self, contract: str, signature: str, arguments: Sequence[Argument], block: int) -> list[bytes]:
        """Returns the words that a view function answers at a block, 32 bytes each.

        Arguments are numbers and 32-byte words: `view(ledger, "roots(uint64)", [7], block)`. Raises ChainError.
        """
        data = keccak256(signature.encode())[:4] + b"".join(map(_word, arguments))
        call = {"to": contract, "data": "0x" + data.hex()}
        answer = self.ask("eth_call", call, hex(block))
        try:
            words = bytes.fromhex(str(answer).removeprefix("0x"))
        except ValueError:
            raise ChainError(f"{signature} at {contract} answers {answer!r}, which is not hex") from None
        if not words or len(words) % _WORD:
            raise ChainError(f"{signature} at {contract} answers {len(words)} bytes: is the contract there?")
        return [words[at : at + _WORD] for at in range(0, len(words), _WORD)]


def _word(argument: Argument) -> bytes:
    if isinstance(argument, int):
        return argument.to_bytes(_WORD, "big")
    return argument.rjust(_WORD, b"\0")


def _number(answer: Any) -> int:
    try:
        return int(str(answer), 16)
    except ValueError:
        raise ChainError(f"{answer!r} is not a number in hex") from None
