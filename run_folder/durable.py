"""Durable writing: a file is written aside, synced and renamed, so that a reader sees the old content or
the new one.

Every file of a run folder that is replaced as a whole is written here. `owner.json` alone has a second way,
for a full disk. Logs that are appended to (ledger, metrics, events) sync themselves where they must.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import BinaryIO

ASIDE_AGE_S = 3600.0
"""The writer of an aside file that is older than this, in seconds, is dead: writing one takes well under a
minute."""

_HOST = os.uname().nodename

Fence = Callable[[], AbstractContextManager[None]]
"""The context of a renaming, which may refuse it: to a writer whose run is another's by now (`owner.py`)."""


def write(path: Path, content: bytes | memoryview | str, fence: Fence = nullcontext) -> None:
    """Replaces `path` in one step. Returns once content and name are on the disk.

    Raises OSError, or what `fence` does, and then removes what it has written aside.
    """
    aside = path.with_name(f"{path.name}.{_HOST}.{os.getpid()}.aside")
    with ExitStack() as failed:
        failed.callback(aside.unlink, missing_ok=True)
        with _new(aside) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        with fence():
            os.replace(aside, path)
        failed.pop_all()
    sync(path.parent)


def publish(aside: Path, folder: Path, replaced: Path | None = None, fence: Fence = nullcontext) -> None:
    """Gives a folder its final name, once everything in it is on the disk.

    replaced: where a folder goes that had this name, in the place of what is left there of an earlier one;
    None refuses such a folder with OSError, unless it is empty."""
    for path in (*aside.rglob("*"), aside):
        sync(path)
    with fence():
        if replaced is not None and folder.exists():
            if replaced.exists():
                shutil.rmtree(replaced)
            folder.rename(replaced)
        aside.rename(folder)
    sync(folder.parent)


def sync(path: Path) -> None:
    """Returns once the content of a file, or the names in a folder, are on the disk, whoever wrote them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, now_s: float) -> None:
    """Removes aside files of dead writers. now_s: Unix seconds. Young files stay, because their writers may
    be alive."""
    for path in folder.glob("*.aside"):
        try:
            abandoned = now_s - path.stat().st_mtime > ASIDE_AGE_S
        except FileNotFoundError:  # its writer has just renamed it
            continue
        if abandoned:
            path.unlink(missing_ok=True)


def _new(path: Path) -> BinaryIO:
    """The file, open for writing.

    Its folder is made only if opening fails. To check first would be two more system calls, and at each of
    them another thread of a worker under load may take the interpreter.
    """
    try:
        return open(path, "wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "wb")
