"""The groups of every trained step with their advantages, in one Arrow file per step: `experience/step-000012.arrow`.

From these files any reward can be derived again offline, and a step replayed into the learner alone.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from dynalign.learner.batch import TrainingBatch
from dynalign.rollout.arrow_schema import SCHEMA, decode, encode, to_group
from dynalign.rollout.records import Group
from dynalign.run_folder import durable
from dynalign.run_folder.layout import experience_file


def write_step(folder: Path, step: int, batch: TrainingBatch) -> Path:
    """Writes the step's groups with their advantages, aside first, so that a file of this name is whole. Writing again replaces it."""
    column = SCHEMA.get_field_index("advantage")
    records = [
        group.record.set_column(column, SCHEMA.field(column), pa.array(advantages_G, pa.float64()))
        for group, advantages_G in zip(batch.groups_P, batch.advantages_PG, strict=True)
    ]
    file = experience_file(folder, step)
    durable.write(file, encode(records))
    return file


def read_step(file: Path) -> Iterator[tuple[Group, tuple[float, ...]]]:
    """Every group of the file with its advantages.

    :raises RecordError: the file is damaged or of another schema.
    """
    with pa.memory_map(str(file)) as source:
        for record in decode(source.read_buffer(), str(file)):
            yield to_group(record), tuple(record.column("advantage").to_pylist())


def prune(folder: Path, keep_steps: int | None, newest_step: int) -> list[Path]:
    """Removes all but the newest `keep_steps` files up to `newest_step` and returns what was removed; None keeps all of these. Steps
    above it were trained in a history that was given up."""
    files = {int(file.stem.removeprefix("step-")): file for file in folder.glob("step-*.arrow")}
    valid = sorted(step for step in files if step <= newest_step)
    kept = valid if keep_steps is None else valid[max(0, len(valid) - keep_steps) :]
    doomed = [files[step] for step in sorted(files) if step not in kept]
    for file in doomed:
        file.unlink(missing_ok=True)
    return doomed
