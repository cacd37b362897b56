"""A service as a process: its gRPC server, its consumers and threads, and how it starts and stops."""

from servicekit.server.call import check_cancelled
from servicekit.server.handler_threads import HeavyWork
from servicekit.server.main import serve
from servicekit.server.service import Service

__all__ = ["HeavyWork", "Service", "check_cancelled", "serve"]
