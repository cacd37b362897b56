"""A server that answers every RPC and records which were called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory

from openledger_client.services import ALL
from openledger_testing.rpc_commands import RESPONSES


def methods() -> dict[str, Any]:
    """Every method of every service, by name."""
    pool = descriptor_pool.Default()
    for service in ALL:
        _ = service.stub(grpc.insecure_channel("127.0.0.1:1"))  # loads the generated code
    return {method.name: method for service in ALL for method in pool.FindServiceByName(service.api).methods}


METHODS = methods()


class Everything(grpc.GenericRpcHandler):
    """Answers every method and records its name."""

    def __init__(self, response: Callable[[str], Any]) -> None:
        self.called: list[str] = []
        self._response = response

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        name = handler_call_details.method.rpartition("/")[2]
        if name not in METHODS:
            return None
        method = METHODS[name]
        response = self._response(name)
        if method.client_streaming:

            def both(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
                self.called.append(name)
                for _ in requests:
                    yield response

            return grpc.stream_stream_rpc_method_handler(both, None, _bytes)
        if method.server_streaming:

            def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[Any]:
                self.called.append(name)
                yield response

            return grpc.unary_stream_rpc_method_handler(stream, None, _bytes)

        def unary(request: bytes, context: grpc.ServicerContext) -> Any:
            self.called.append(name)
            return response

        return grpc.unary_unary_rpc_method_handler(unary, None, _bytes)


def _bytes(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content


def empty_response(method: str) -> Any:
    """What a method answers: nothing, except what the command needs."""
    return RESPONSES.get(method) or message_factory.GetMessageClass(METHODS[method].output_type)()


@contextmanager
def served(handler: Everything) -> Iterator[tuple[Everything, str]]:
    """Yields a handler and the address of its server."""
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, handlers=[handler])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield handler, f"127.0.0.1:{port}"
        server.stop(0).wait()
