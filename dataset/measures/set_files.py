"""The files of a made set, as its card needs them: `set.json`, `prompts.parquet`, `items.parquet`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.dataset.items import AXES
from dynalign.dataset.measures.examination import GivenSet

_ITEM_COLUMNS = ("place", "attempt", *AXES, "goal", "prompt", "fate", "reason", "detail", "split", "score")
_PROMPT_COLUMNS = ("id", "prompt", *AXES, "goal", "split")

Record = Mapping[str, object]
"""A row of a Parquet file: column → value."""


@dataclass(frozen=True)
class MadeSet:
    """A made set, as it is on disk: `MadeSet("set", {"asked": 1100}, (…), (…))`."""

    name: str
    """Name of its folder."""
    state: Mapping[str, object]
    """set.json."""
    prompts: tuple[Record, ...]
    """The accepted prompts, in their order."""
    items: tuple[Record, ...]
    """Every item, whatever became of it."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that have values."""
        return tuple(axis for axis in AXES if any(item[axis] for item in self.items))

    def given(self) -> GivenSet:
        """The accepted prompts with all values that their axes have among all items."""
        return GivenSet(
            name=self.name,
            texts=tuple(str(prompt["prompt"]) for prompt in self.prompts),
            axes={axis: tuple(str(prompt[axis]) for prompt in self.prompts) for axis in self.axes},
            known={axis: tuple(sorted({str(item[axis]) for item in self.items})) for axis in self.axes},
        )


def read_set(folder: Path) -> MadeSet:
    """Reads a made set. Raises UserError for a folder without one, or with damaged files."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        state = json.loads((folder / "set.json").read_bytes())
        prompts = pyarrow.parquet.read_table(folder / "prompts.parquet", columns=list(_PROMPT_COLUMNS))
        items = pyarrow.parquet.read_table(folder / "items.parquet", columns=list(_ITEM_COLUMNS))
    except (OSError, ValueError, pa.ArrowException) as error:
        rule = f"is no folder of a made set ({' '.join(str(error).split())})"
        remedy = "name the folder that `dynalign prompts make` wrote"
        raise UserError([Mistake(str(folder), None, rule, remedy)]) from error
    return MadeSet(folder.resolve().name, state, tuple(prompts.to_pylist()), tuple(items.to_pylist()))
