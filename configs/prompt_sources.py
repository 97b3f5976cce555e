"""How a user names prompts: the shipped ones, a file, a folder of shards, a data set of the hub."""

import re
from dataclasses import dataclass
from pathlib import PurePath

from dynalign.configs.user_paths import path_rule

BUILTIN = "builtin"
"""The prompts that are shipped."""
HUB = "hub:"
"""Begins the name of a data set of the hub."""
SUFFIXES = (
    ".jsonl",
    ".jsonl.gz",
    ".json",
    ".json.gz",
    ".csv",
    ".csv.gz",
    ".tsv",
    ".tsv.gz",
    ".parquet",
    ".arrow",
)
"""The kinds of files, by their endings."""
KINDS = (
    "builtin, a .jsonl, .json, .csv or .tsv file (or one of them with .gz), a .parquet or .arrow file, "
    "a folder of them, or hub:owner/name:split"
)
"""All forms, in words."""

_HUB_NAME = re.compile(
    r"hub:(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<subset>[\w.-]+))?(?::(?P<split>[\w.-]+(?:\[[\d:%-]*\])?))?",
    re.ASCII,
)


@dataclass(frozen=True)
class HubName:
    """A data set of the hub: `HubName("allenai/WildChat", None, "train[:1000]")`."""

    name: str
    """Owner and name."""
    subset: str | None
    """The configuration, where the data set has several."""
    split: str
    """The split, or a part of it as the package `datasets` writes it."""


def hub_name(source: str) -> HubName | None:
    """The data set that `hub:owner/name[/subset][:split]` names; None for a text of another form."""
    found = _HUB_NAME.fullmatch(source)
    return None if found is None else HubName(found["name"], found["subset"], found["split"] or "train")


def source_rule(source: str) -> tuple[str, str] | None:
    """The rule that the name of a source breaks, and the remedy; None for one that may exist."""
    if source.startswith(HUB):
        if hub_name(source) is not None:
            return None
        return "is not of the form hub:owner/name:split", "name one data set of the hub, as hub:owner/name"
    broken = path_rule(source)
    if broken is not None or source == BUILTIN or source.lower().endswith(SUFFIXES):
        return broken
    if PurePath(source).suffix and not source.endswith("/"):
        return "is no known kind of source", f"give {KINDS}; end a folder's name with /"
    return None
