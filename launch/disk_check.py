"""Whether the disk of the run folder holds what a run will write."""

import shutil

from dynalign.configs.errors import Mistake
from dynalign.launch.plan.memory import gigabytes
from dynalign.launch.plan.plan import PlacementPlan
from dynalign.launch.resume.open_run import RunFolder
from dynalign.run_folder import layout


def disk_mistakes(result: PlacementPlan, folder: RunFolder) -> list[Mistake]:
    """The mistake of a disk with too little free space. What exists already is not counted again.

    One more checkpoint is always needed: it is written before the oldest is removed.
    """
    there = len(layout.checkpoint_folders(folder.path / layout.CHECKPOINTS))
    experience = layout.experience_files(folder.path / layout.EXPERIENCE)
    written = sum(file.stat().st_size for file in experience.values())
    records = sum(part.size_bytes for part in result.disk if part.name != "checkpoints")
    checkpoints = max(1, result.checkpoints - there) * result.checkpoint.size_bytes
    needed_bytes = checkpoints + max(0, records - written)
    nearest = next(parent for parent in (folder.path, *folder.path.parents) if parent.exists())
    free_bytes = shutil.disk_usage(nearest).free
    if needed_bytes <= free_bytes:
        return []
    largest = max(result.disk, key=lambda part: part.size_bytes)
    rule = f"the disk must hold {gigabytes(needed_bytes)}, most of it for {largest.name} ({largest.formula})"
    remedy = "free some, lower checkpoint.keep_last or experience.keep_steps, or set runs elsewhere"
    return [Mistake(str(nearest), f"{gigabytes(free_bytes)} free", rule, remedy)]
