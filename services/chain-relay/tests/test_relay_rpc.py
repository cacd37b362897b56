"""A node's answers are bounded in time and in size."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from web3.types import RPCEndpoint

from chain_relay.rpc import BoundedProvider
from servicekit.testing.waiting import LONGEST_S

_ANSWER = b'{"jsonrpc":"2.0","id":0,"result":"0x7a69"}'
_CHAIN_ID = RPCEndpoint("eth_chainId")


@contextmanager
def node(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Runs a node that answers every call so; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            try:
                answer(self)
            except OSError:
                self.close_connection = True  # the client has left

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(LONGEST_S)


def whole(handler: BaseHTTPRequestHandler, content: bytes = _ANSWER) -> None:
    handler.send_response(200)
    handler.send_header("content-length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def chunked(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    for part in (_ANSWER[:7], _ANSWER[7:]):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
    handler.wfile.write(b"0\r\n\r\n")


@pytest.mark.parametrize("answer", [whole, chunked])
def test_an_answer_is_read_whole_again_and_again(answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
    with node(answer) as url:
        provider = BoundedProvider(url, LONGEST_S)
        for _ in range(3):
            assert provider.make_request(_CHAIN_ID, [])["result"] == "0x7a69"


def test_an_answer_that_comes_byte_by_byte_ends_at_the_deadline() -> None:
    ended = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "1000000")
        handler.end_headers()
        while not ended.wait(0.05):
            handler.wfile.write(b" ")

    with node(drip) as url:
        with pytest.raises(requests.Timeout) as late:
            BoundedProvider(url.replace("://", "://user:secret@") + "/key?secret", 0.5).make_request(
                _CHAIN_ID, []
            )
        ended.set()
    assert str(late.value) == f"eth_chainId at {url}: no whole answer within 0.5 s"


def test_an_answer_that_is_too_long_is_refused() -> None:
    with node(lambda handler: whole(handler, b" " * 10_000)) as url:
        provider = BoundedProvider(url, LONGEST_S, max_answer_bytes=1000)
        with pytest.raises(requests.RequestException, match="more than 1000 bytes"):
            provider.make_request(_CHAIN_ID, [])


def test_a_connection_that_breaks_in_an_answer_is_an_error_of_the_connection() -> None:
    def broken(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        handler.wfile.write(_ANSWER)
        handler.close_connection = True

    with node(broken) as url, pytest.raises(requests.ConnectionError, match=f"eth_chainId at {url}: "):
        BoundedProvider(url, LONGEST_S).make_request(_CHAIN_ID, [])
