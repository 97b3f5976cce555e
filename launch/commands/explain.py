"""`dynalign explain`: every setting with its value, where the value came from, and what it means."""

import json
from collections.abc import Iterator

from dynalign.configs.load import LoadedRun, listed
from dynalign.configs.refusals import FIELDS


def explain_lines(loaded: LoadedRun) -> Iterator[str]:
    """Two lines per setting; below a section that is null, a line for each setting it could have."""
    for setting in listed(loaded.settings):
        value = json.dumps(setting.value, ensure_ascii=False)
        yield f"{setting.path} = {value}  ({loaded.origins[setting.path]})"
        yield f"    {_one_line(setting.description)}"
        for path, field in FIELDS.items():
            if path.startswith(f"{setting.path}."):
                yield f"    {path}: {_one_line(field.description or '')}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
