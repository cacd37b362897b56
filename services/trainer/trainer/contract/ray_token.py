"""The token of a local Ray head, kept below the state folder.

Ray binds to the machine's address even when asked not to, and a client that may submit a job may run anything: so every
call needs a token, which only its owner can read.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from servicekit import crash, private


def token_file(state_dir: Path) -> Path:
    """Returns where the head's token is kept."""
    return state_dir.absolute() / "ray" / "token"


def client_environment(state_dir: Path) -> dict[str, str]:
    """Returns the environment variables with which Ray's own clients reach this head.

    Makes the token when it is missing: a client may start before its head.
    """
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(ensure_token(state_dir))}


def ensure_token(state_dir: Path) -> Path:
    """Writes the token once, readable by its owner only; two starters at once end with one token. Returns its file."""
    path = token_file(state_dir)
    private.folder(path.parent)
    if path.is_file():
        return path
    partial = path.with_name(f".{secrets.token_hex(8)}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    try:
        with crash.step("token"):
            os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink()
    return path


def bearer_token(environment: Mapping[str, str]) -> str | None:
    """Returns the token that Ray's variables name, as Ray's own clients find it; None where authentication is off.

    Raises OSError when RAY_AUTH_MODE is "token" and the token's file cannot be read.
    """
    if environment.get("RAY_AUTH_MODE", "").lower() != "token":
        return None
    if token := environment.get("RAY_AUTH_TOKEN"):
        return token
    path = environment.get("RAY_AUTH_TOKEN_PATH") or str(Path.home() / ".ray" / "auth_token")
    return Path(path).read_text().strip()
