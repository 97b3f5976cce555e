"""Durable writing: a file is written aside, synced and renamed, so that a reader sees the old content or the new one, never a part.

Every file of a run folder that is replaced as a whole is written here. `owner.json` alone has a second way, for a full disk.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

ASIDE_AGE_S = 3600.0
"""A file written aside that is older than this, in seconds, is a dead writer's: writing one takes well under a minute."""

_HOST = os.uname().nodename


def write(path: Path, content: bytes | memoryview | str) -> None:
    """Replaces `path` in one step; returns once content and name are on the disk. Raises OSError, and then leaves nothing aside."""
    aside = path.with_name(f"{path.name}.{_HOST}.{os.getpid()}.aside")
    with ExitStack() as failed:
        failed.callback(aside.unlink, missing_ok=True)
        with _new(aside) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        failed.pop_all()
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk, whoever wrote them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, now_s: float) -> None:
    """Removes what dead writers left aside. now_s: Unix seconds. Young files stay: their writers may be alive."""
    for path in folder.glob("*.aside"):
        try:
            abandoned = now_s - path.stat().st_mtime > ASIDE_AGE_S
        except FileNotFoundError:  # its writer has just renamed it
            continue
        if abandoned:
            path.unlink(missing_ok=True)


def _new(path: Path) -> BinaryIO:
    """The file, open for writing. Its folder is made only where opening fails: to ask first would be two more system calls, and each
    lets another thread of a busy worker take the interpreter."""
    try:
        return open(path, "wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "wb")
