"""A real chain for tests: anvil on a free port, gone when the test ends."""

from __future__ import annotations

import json
import platform
import subprocess
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from openledger_testing.repository import ROOT
from servicekit.testing.ports import claimed_port
from servicekit.testing.waiting import LONGEST_S, eventually

_ARCHITECTURE = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def anvil_binary() -> Path:
    """anvil itself, without Node in front of it: a signal to the process then reaches it."""
    machine = _ARCHITECTURE[platform.machine().lower()]
    return (
        ROOT
        / "node_modules"
        / "@foundry-rs"
        / f"anvil-{platform.system().lower()}-{machine}"
        / "bin"
        / "anvil"
    )


class Anvil:
    """A chain that mines a block for every transaction, until `stop_mining` gives the test the clock."""

    def __init__(self, *arguments: str, slots_in_an_epoch: int = 1) -> None:
        """`slots_in_an_epoch` n: the safe block is n behind the latest, the finalized one 2n."""
        self.port = claimed_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [
                str(anvil_binary()),
                *("--port", str(self.port), "--slots-in-an-epoch", str(slots_in_an_epoch), "--quiet"),
                *arguments,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        try:
            eventually(lambda: self._answers() or self._process.poll() is not None, "anvil")
        except AssertionError:
            self.__exit__(None, None, None)
            raise
        if self._process.poll() is not None:
            raise RuntimeError(f"anvil ended with code {self._process.returncode}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            self.rpc("eth_chainId")
        except OSError:
            return False
        return True

    def rpc(self, method: str, *parameters: Any) -> Any:
        """One JSON-RPC call. Raises RuntimeError for an error of the node, OSError when it is down."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        request = urllib.request.Request(
            self.url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=LONGEST_S) as response:
            answer = json.load(response)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def stop_mining(self) -> None:
        """From now on blocks come by `mine` alone."""
        self.rpc("evm_setAutomine", False)

    def mine(self, blocks: int = 1) -> None:
        """Mines blocks, the first of them with what waits."""
        self.rpc("anvil_mine", hex(blocks))

    def reorg(self, depth: int) -> None:
        """Replaces the newest blocks by empty ones; their transactions are forgotten, not put back."""
        self.rpc("anvil_reorg", depth, [])
