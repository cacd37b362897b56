"""One run of a whole service: started from its settings, used by clients through its API, stopped when all is at rest."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openledger_client.channels import sync_channel
from servicekit.server import Service
from servicekit.testing.services import token
from servicekit.testing.waiting import LONGEST_S


class Using:
    """What a client needs to use a running service."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self.folder = folder

    def stub(self, made: Callable[[Any], Any], principal: str, *roles: str) -> Any:
        """A stub of an API for a principal."""
        assert self.service.address is not None
        return made(sync_channel(self.service.address.grpc, token(self.service, roles, principal)))

    def acknowledged(self, what: str) -> None:
        """Notes, where a kill does not take it, that the service said it has something."""
        acknowledge(self.folder, what)


def live(service: Service, folder: Path, use: Callable[[Using], None]) -> None:
    """Runs the service, uses it, stops it. Raises what the client raised, or when a part of the service failed."""
    failed: list[BaseException] = []

    def client() -> None:
        try:
            if not service.wait_ready(LONGEST_S):
                raise TimeoutError("the service was never ready")
            use(Using(service, folder))
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            traceback.print_exc()
            failed.append(error)
        finally:
            service.stop()

    thread = threading.Thread(target=client, name="client", daemon=True)
    thread.start()
    code = service.run()
    thread.join(LONGEST_S)
    if failed:
        raise failed[0]
    assert code == 0, f"the service ended with {code}"


def acknowledge(folder: Path, what: str) -> None:
    """Notes a promise in the folder."""
    with (folder / "acknowledged").open("a") as file:
        file.write(f"{what}\n")


def acknowledged(folder: Path) -> list[str]:
    """Returns what the service said it has, in any of its runs."""
    path = folder / "acknowledged"
    return path.read_text().splitlines() if path.exists() else []
