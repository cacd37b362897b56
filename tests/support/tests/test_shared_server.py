"""One server for all processes of a run: started once, stopped after the last user, started again when its owner died."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from openledger_testing.shared_server import shared_server

_SPAWN = multiprocessing.get_context("spawn")


def _use(folder: Path, orders: Connection) -> None:
    """A worker: uses the server until it is asked to stop, and says which address it got."""

    @contextmanager
    def start() -> Iterator[str]:
        _note(folder, f"started by {os.getpid()}")
        yield str(os.getpid())
        _note(folder, f"stopped by {os.getpid()}")

    with shared_server(folder, "server", start) as address:
        orders.send(address)
        orders.recv()
    orders.send("done")


def _note(folder: Path, line: str) -> None:
    with (folder / "log").open("a") as log:
        log.write(line + "\n")


class Worker:
    """A process that uses the shared server."""

    def __init__(self, folder: Path) -> None:
        self.orders, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_use, args=(folder, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def address(self) -> str:
        assert self.orders.poll(120), "the worker did not get the server"
        return str(self.orders.recv())

    def stop_using(self) -> None:
        self.orders.send("stop")

    def is_done(self, timeout_s: float) -> bool:
        return self.orders.poll(timeout_s)

    def finish(self) -> None:
        assert self.is_done(120), "the worker did not finish"
        self.orders.recv()
        self.process.join(60)


def test_the_second_worker_gets_the_first_ones_server_and_the_owner_waits_for_it(tmp_path: Path) -> None:
    first = Worker(tmp_path)
    address = first.address()
    second = Worker(tmp_path)
    assert second.address() == address
    first.stop_using()
    assert not first.is_done(0.3)  # its server is still used
    second.stop_using()
    second.finish()
    first.finish()
    assert (tmp_path / "log").read_text().splitlines() == [f"started by {address}", f"stopped by {address}"]


def test_after_the_owner_died_the_next_worker_starts_the_server_again(tmp_path: Path) -> None:
    first = Worker(tmp_path)
    dead = int(first.address())
    os.kill(dead, signal.SIGKILL)
    first.process.join(60)
    second = Worker(tmp_path)
    assert second.address() != str(dead)
    second.stop_using()
    second.finish()


def test_a_server_that_does_not_start_is_an_error_and_holds_no_one_up(tmp_path: Path) -> None:
    @contextmanager
    def broken() -> Iterator[str]:
        raise RuntimeError("no port")
        yield ""

    with pytest.raises(RuntimeError, match="no port"), shared_server(tmp_path, "server", broken):
        pass
    worker = Worker(tmp_path)
    assert worker.address()
    worker.stop_using()
    worker.finish()
