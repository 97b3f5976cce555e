"""The trained groups of each step with their advantages, in one Arrow file per step:
`experience/step-000012.arrow`.

From these files every reward can be derived again offline, and a step can be replayed into the learner alone.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from dynalign.learner.batch import TrainingBatch
from dynalign.rollout.arrow_schema import SCHEMA, decode, encode, to_group
from dynalign.rollout.records import Group
from dynalign.run_folder import durable
from dynalign.run_folder.layout import experience_file, experience_files


def write_step(
    folder: Path, step: int, batch: TrainingBatch, fence: durable.Fence = contextlib.nullcontext
) -> Path:
    """Write the step's groups with their advantages, and return the file.

    The file is written under another name and then renamed, so a file of this name is complete. A second call
    replaces it, unless `fence` refuses that to a learner whose run is another's by now.
    """
    column = SCHEMA.get_field_index("advantage")
    records = [
        group.record.set_column(column, SCHEMA.field(column), pa.array(advantages_G, pa.float64()))
        for group, advantages_G in zip(batch.groups_P, batch.advantages_PG, strict=True)
    ]
    file = experience_file(folder, step)
    durable.write(file, encode(records), fence)
    return file


def read_step(file: Path) -> Iterator[tuple[Group, tuple[float, ...]]]:
    """Yield every group of the file with the advantages of its candidates.

    Raises RecordError if the file is damaged or has another schema.
    """
    with pa.memory_map(str(file)) as source:
        for record in decode(source.read_buffer(), str(file)):
            yield to_group(record), tuple(record.column("advantage").to_pylist())


def prune(folder: Path, keep_steps: int | None, newest_step: int) -> list[Path]:
    """Remove old files, and return what was removed.

    keep_steps: how many of the newest files up to `newest_step` stay; None keeps all of them.
    newest_step: the step trained last. Files of later steps are removed too: they belong to a history that a
    rollback ended.
    """
    files = experience_files(folder)
    valid = sorted(step for step in files if step <= newest_step)
    kept = valid if keep_steps is None else valid[max(0, len(valid) - keep_steps) :]
    doomed = [files[step] for step in sorted(files) if step not in kept]
    for file in doomed:
        file.unlink(missing_ok=True)
    return doomed
