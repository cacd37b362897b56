"""Folders and files that only the user who runs the platform can open: what the API guards, the disk guards too.

Folders have mode 0700 and files 0600. `protect_process` makes that the default of everything that a process creates, libraries
included; every program of the platform calls it first. `folder` and `file` state it where a process may run without it (tests,
a user's own program). `tighten` closes a state folder that an earlier release, or a careless copy, left open.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from servicekit.deadlines import lock_file

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_LONGEST_SOCKET_PATH = 107
"""Bytes of a Unix socket's path that Linux takes."""


def protect_process() -> None:
    """Makes every file and folder that this process and its children create from now on private to their user."""
    os.umask(_OTHERS)


def folder(path: Path) -> Path:
    """Creates a folder, with its parents, that only its owner can open, and returns it. An existing one keeps its mode."""
    missing = []
    at = path
    while not at.exists():
        missing.append(at)
        at = at.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)  # raises FileExistsError where a file has the name
    return path


def file(path: Path) -> Path:
    """Creates an empty file that only its owner can read, or closes an existing one to others, and returns it.

    Called before a library opens the file: SQLite gives its journals the mode of the database. An existing file is not opened:
    closing any descriptor of a database drops all locks that SQLite holds on it in this process (POSIX), and another process
    that reads the database then deletes its write-ahead log.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        mode = path.stat().st_mode
        if mode & _OTHERS:
            with suppress(PermissionError):  # another user's file; `tighten` reports the folder
                path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
    return path


def exposed(root: Path) -> list[Path]:
    """Returns what others than the owner may open at or below a folder, the folder first. Links are not followed."""
    found = [root] if root.lstat().st_mode & _OTHERS else []
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent) / name
            with suppress(FileNotFoundError):  # removed after it was listed
                mode = path.lstat().st_mode
                if mode & _OTHERS and not stat.S_ISLNK(mode):
                    found.append(path)
    return found


def tighten(root: Path) -> str:
    """Creates a state folder, or closes an open one and everything in it to others. Returns a line for the log; "" when
    there was nothing to do. What is in a closed folder cannot be reached, so it is not read.
    """
    folder(root)
    if not root.stat().st_mode & _OTHERS:
        return ""
    closed, left = 0, []
    for path in exposed(root):
        try:
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_OTHERS)
            closed += 1
        except FileNotFoundError:
            continue
        except PermissionError:
            left.append(path)
    line = f"state folder {root} was open to other users: closed {closed} files and folders to all but their owner"
    if left:
        line += (
            f"; {len(left)} belong to another user and stay open, {left[0]} for example: chmod go-rwx them"
        )
    return line


def socket_folder(state_dir: Path, name: str, room: int) -> Path:
    """Returns a private folder for the sockets of a state folder: `state_dir/name` where a socket's path fits in it, else a
    folder with a random name in the temporary folder, which `state_dir/name` then names in a file.

    Args:
        room: the bytes that the longest path of a socket takes after the folder's own path.
    """
    own = folder(state_dir.absolute() / name)
    if len(os.fsencode(own)) + room <= _LONGEST_SOCKET_PATH:
        own.chmod(0o700)
        return own
    note = own / "sockets"
    with file(own / ".sockets-lock").open("w") as lock:  # two starters at once get one folder
        lock_file(lock)
        if note.exists():
            made = Path(note.read_text())
            if _is_private_folder(made):
                return made
        made = Path(tempfile.mkdtemp(prefix="openledger-"))
        file(note).write_text(str(made))
        return made


def _is_private_folder(path: Path) -> bool:
    """Returns whether it is ours and closed: a cleaner of temporary files may have removed it, and another user made one."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & _OTHERS
