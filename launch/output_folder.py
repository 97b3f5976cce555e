"""The folder in which a command writes what was paid for: refused before anything starts."""

import os
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.user_paths import user_path
from dynalign.launch.ray_cluster import ray_job


def output_folder(place: str, text: str, name: str = "") -> Path:
    """The absolute path of the folder `text`, or of `name` in it. It need not exist.

    place: the option or setting that names it. Raises UserError for a folder that goes with the Ray job in
    which the command runs, for a path that is no folder, and for one that cannot be written to.
    """
    folder = user_path(place, text) / name
    lost = ray_job.lost_with_the_job(text, folder)
    if lost is not None:
        raise UserError([Mistake(place, text, lost, "name an absolute path that all nodes reach")])
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        rule = f"{nearest} {'cannot be written to' if nearest.is_dir() else 'is no folder'}"
        raise UserError([Mistake(place, str(folder), rule, "name a folder you can write to")])
    return folder
