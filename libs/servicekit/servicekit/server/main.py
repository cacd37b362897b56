"""A service as a program.

Its ``__main__.py`` is all of::

    def build(settings: DatanetSettings) -> Service:
        service = Service("datanet", settings, "datanet")
        service.add_servicer(add_DatanetServiceServicer_to_server, DatanetApi(service.engine, service.objects))
        service.add_consumer("datanet", {MODEL_VERSION_V1: {"openledger.trainer.v1.ModelVersionChanged": on_change}})
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

from servicekit.errors import StartupError
from servicekit.server.service import Service
from servicekit.settings import ServiceSettings

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=ServiceSettings)

# What the machine's operator mends, whoever met it: full and read-only disks, missing rights.
_MENDABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES})


def serve(settings_type: type[S], build: Callable[[S], Service]) -> int:
    """The whole of a service's ``__main__``: settings from the environment, build, run. Returns the exit code.

    What an operator can mend is one line on standard error and code 1, without a traceback.
    """
    try:
        settings = settings_type.load()
        code = build(settings).run()
    except StartupError as error:
        print(f"{settings_type.service}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in _MENDABLE:
            raise
        print(f"{settings_type.service}: {error.filename or 'its disk'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the service listened to signals itself
        return 128 + signal.SIGINT
    stuck = [t.name for t in threading.enumerate() if t.name.startswith("handler") and not _joined(t)]
    if stuck:
        # The interpreter would wait for them for ever; their callers have been told that they were cancelled.
        logger.error("leaving handler threads behind", extra={"threads": stuck})
        logging.shutdown()
        os._exit(code)
    return code


def _joined(thread: threading.Thread) -> bool:
    thread.join(0.5)
    return not thread.is_alive()
