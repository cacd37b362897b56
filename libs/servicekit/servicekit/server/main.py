"""Runs a service as a program.

The ``__main__.py`` of a service is::

    def build(settings: DatanetSettings) -> Service:
        service = Service("datanet", settings, "datanet")
        service.add_servicer(add_DatanetServiceServicer_to_server, DatanetApi(service.engine, service.objects))
        service.subscribe(MODEL_VERSION_V1, ModelVersionChanged, on_change)
        return service

    if __name__ == "__main__":
        sys.exit(serve(DatanetSettings, build))
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from servicekit import private
from servicekit.errors import StartupError
from servicekit.server.descriptors import raise_descriptor_limit
from servicekit.server.handler_threads import end_idle
from servicekit.server.service import Service
from servicekit.settings import ServiceSettings

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=ServiceSettings)

# Errors that the operator of the machine can repair: full and read-only disks, missing permissions.
_REPAIRABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES})


def serve(settings_type: type[S], build: Callable[[S], Service]) -> int:
    """Loads settings from the environment, builds the service, runs it, and returns the exit code.

    An error that an operator can repair is printed as one line on standard error, without a traceback; the code is then 1.
    """
    private.protect_process()
    try:
        raise_descriptor_limit()
        settings = settings_type.load()
        code = build(settings).run()
    except StartupError as error:
        print(f"{settings_type.service}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in _REPAIRABLE:
            raise
        print(f"{settings_type.service}: {error.filename or 'its disk'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the service handled signals itself
        return 128 + signal.SIGINT
    end_idle()
    stuck = [t.name for t in threading.enumerate() if t.name.startswith("handler") and not _joined(t)]
    if stuck:
        # The interpreter would wait for them forever; their callers received CANCELLED.
        logger.error("leaving handler threads behind", extra={"threads": stuck})
        logging.shutdown()
        os._exit(code)
    return code


def _joined(thread: threading.Thread) -> bool:
    thread.join(0.5)
    return not thread.is_alive()
