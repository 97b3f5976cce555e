"""Paths as a user writes them: `~` for a home folder, relative, too long, or no path at all.

Every path that a user names goes through `path_rule` when the settings are read, and through `user_path`
where it is opened.
"""

import os
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError

LONGEST_NAME_BYTES = 255
"""NAME_MAX of Linux's file systems: the longest name of one file or folder."""
LONGEST_PATH_BYTES = 4095
"""PATH_MAX of Linux, without the byte that ends a path."""

NO_HOME = "this user has no home folder: HOME is not set, and the user id has no entry in passwd"


def path_rule(text: str) -> tuple[str, str] | None:
    """The rule that a path breaks, and the remedy; None for a path that may exist.

    An address of a storage service is not a path, and neither is a text with control characters.
    """
    if not text.strip():
        return "is empty", "name a file or folder"
    if not text.isprintable():
        return "holds a character that no path has", "write the path without control characters"
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        return "holds a character that no path has", "write the path as UTF-8"
    if "://" in text:
        scheme = text.partition("://")[0]
        return (
            f"is an address ({scheme}://), not a path",
            "name a folder or file of this machine's file system",
        )
    if max(len(part.encode()) for part in text.split("/")) > LONGEST_NAME_BYTES:
        return f"has a name of more than {LONGEST_NAME_BYTES} bytes", "name a file or folder that exists"
    if len(text.encode()) > LONGEST_PATH_BYTES:
        return f"has more than {LONGEST_PATH_BYTES:,} bytes", "name a file or folder with a shorter path"
    if text.startswith("~"):
        return _home_rule(text.split("/")[0])
    return None


def _home_rule(home: str) -> tuple[str, str] | None:
    """The same of `~` or `~name`, the first part of a path."""
    try:
        Path(home).expanduser()
    except RuntimeError:
        if home == "~":
            return NO_HOME, "write the whole path, or set HOME=<a folder you can write to>"
        return (
            f"this machine has no user {home[1:]!r}",
            "write the whole path, or ./~… for a file of that name",
        )
    return None


def user_path(place: str, text: str) -> Path:
    """The absolute path that a user means by `text`.

    place: what the path is for, such as `judge.values`. Raises UserError for a text that is no path, for a
    home folder that does not exist, and for a relative path when the current folder is gone.
    """
    broken = path_rule(text)
    if broken is not None:
        raise UserError([Mistake(place, text, *broken)])
    path = Path(text).expanduser()
    return path if path.is_absolute() else current_folder() / path


def current_folder() -> Path:
    """The folder in which the command runs. Raises UserError if it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        rule = "does not exist any more"
        remedy = "run the command in a folder that exists, with `cd`"
        raise UserError([Mistake("current folder", None, rule, remedy)]) from error


def cache_folder() -> Path:
    """The folder for files that can be made again: XDG_CACHE_HOME, by default `~/.cache`.

    Raises UserError for a user without a home folder.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return user_path("XDG_CACHE_HOME", named)
    return home_folder("XDG_CACHE_HOME") / ".cache"


def home_folder(instead: str) -> Path:
    """The user's home folder. Raises UserError for a user without one.

    instead: the environment variable that names the wanted folder without a home folder.
    """
    try:
        return Path.home()
    except RuntimeError as error:
        remedy = f"set HOME or {instead} to a folder you can write to"
        raise UserError([Mistake("HOME", None, NO_HOME, remedy)]) from error
