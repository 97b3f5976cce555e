"""`dynalign export`: verifies a checkpoint, copies its Hugging Face folder to where the user wants it with a
card beside it, and uploads it where that is asked for."""

import os
import shutil
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.launch.output_folder import output_folder
from dynalign.run_folder import durable, layout
from dynalign.run_folder.checkpoint import newest_whole, verify
from dynalign.run_folder.layout import step_folder


def export(run_folder: Path, out: Path, step: int | None, push: str | None = None) -> None:
    """Copies the model of `step` (None: the newest checkpoint) into `out`, which must not exist yet.

    push: OWNER/NAME at a model hub, to which it is uploaded then. Raises UserError for a run or step without
    checkpoint, and for a push that cannot be, CheckpointError for a damaged one, RunFailed when the hub
    refuses: the exported folder stays.
    """
    from dynalign.launch.commands.model_card import add_card

    checkpoints = run_folder / layout.CHECKPOINTS
    chosen = newest_whole(checkpoints) if step is None else step_folder(checkpoints, step)
    mistakes = []
    if chosen is None or not chosen.is_dir():
        there = ", ".join(folder.name for folder in layout.checkpoint_folders(checkpoints).values()) or "none"
        rule = f"has no such checkpoint (there: {there})"
        mistakes.append(Mistake(str(run_folder), None, rule, "name a step that is there"))
    if out.exists():
        mistakes.append(Mistake(str(out), None, "exists already", "name a folder that does not exist"))
    else:
        try:
            output_folder("OUT", str(out))
        except UserError as error:
            mistakes += error.mistakes
    if push is not None:
        from dynalign.launch.commands.hub_push import push_mistakes

        mistakes += push_mistakes(push)
    if chosen is None or mistakes:
        raise UserError(mistakes)
    verify(chosen)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        shutil.copytree(chosen / layout.EXPORTED_MODEL, aside)
        said = add_card(run_folder, aside)
        durable.publish(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(f"exported {chosen.name} of {run_folder.name} to {out}, {said}")
    if push is not None:
        from dynalign.launch.commands.hub_push import push as upload

        print(f"uploaded to {upload(out, push)}")
