"""Calls of a node, each bounded in time and size: what a node answers is not trusted."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import requests
from web3 import HTTPProvider
from web3.types import RPCEndpoint, RPCResponse

from servicekit.http_client import HttpClient, HttpError, HttpTimeout, HttpTooLarge, shown

MAX_ANSWER_BYTES = 64 << 20
"""A year of this relay's logs is far below it."""


class BoundedProvider(HTTPProvider):
    """web3's provider with a deadline for the whole answer, and without its retries.

    The timeout of `requests` starts again with every byte, so a node that sends one from time to time would stop the relay
    forever. web3's retries would send transactions again without the relay's knowledge. Errors are those of `requests`, as
    web3's users expect them.
    """

    def __init__(self, rpc_url: str, timeout_s: float, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        super().__init__(rpc_url, exception_retry_configuration=None)
        self._client = HttpClient(timeout_s, max_answer_bytes, environment=True)

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Returns the node's answer. Raises requests.RequestException, whose text names method and node, without keys."""
        content = self._post(method, self.encode_rpc_request(method, params))
        try:
            return self.decode_rpc_response(content)
        except ValueError:
            raise requests.RequestException(f"{method} at {self._node}: the answer is not JSON") from None

    @property
    def _node(self) -> str:
        return shown(str(self.endpoint_uri))

    def _post(self, method: str, content: bytes) -> bytes:
        headers = {str(name): str(value) for name, value in self.get_request_headers().items()}
        try:
            answer = self._client.exchange("POST", str(self.endpoint_uri), headers=headers, content=content)
        except HttpTimeout as error:
            raise requests.Timeout(f"{method} at {error}") from error
        except HttpTooLarge as error:
            raise requests.RequestException(f"{method} at {error}") from error
        except HttpError as error:
            raise requests.ConnectionError(f"{method} at {error}") from error
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise requests.HTTPError(f"{method} at {self._node}: status {answer.status}")
        return answer.body
