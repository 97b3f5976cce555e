"""`dynalign replay`: trains on the recorded groups of a run again, and compares the losses step by step.

It needs neither Ray nor an engine: anyone who has the run folder and the model can repeat what the learner
did.
"""

import os
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import load_run
from dynalign.launch.models.folder import model_folder
from dynalign.run_folder import layout
from dynalign.run_folder.layout import experience_file
from dynalign.run_folder.metrics import read_metrics

_TOLERANCE = 1e-3
"""Relative. A resumed run has rounded its master weights once more, to the checkpoint's precision."""


def replay(run_folder: Path) -> int:
    """Prints the recorded and the replayed loss of each step. Returns 0 if all agree, 1 if one does not.

    Raises UserError when the experience of the first or of a later step is missing, RecordError for a
    damaged file.
    """
    settings = load_run(str(run_folder / layout.CONFIG)).settings
    recorded = {row["step"]: row["loss"] for row in read_metrics(run_folder) if row["loss"] is not None}
    experience = run_folder / layout.EXPERIENCE
    steps = [step for step in sorted(recorded) if experience_file(experience, step).exists()]
    if not steps or steps[0] != 1 or steps != list(range(1, len(steps) + 1)):
        rule = "has no experience of every step from the first one on"
        remedy = "replay a run made with experience.keep_steps=null and one rank"
        raise UserError([Mistake(str(experience), None, rule, remedy)])
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    if settings.placement.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    from dynalign.learner.learner import Learner  # reads the environment set above

    learner = Learner(settings, Path(model_folder(settings.model)), 0, 1)
    differing = 0
    print("step  recorded loss  replayed loss")
    for step in steps:
        file = experience_file(experience, step)
        payload = file.read_bytes()
        learner.prepare(step, [payload], [file.name])
        loss = learner.run(step)["loss"]
        allowed = _TOLERANCE * max(abs(recorded[step]), _TOLERANCE)
        agree = loss is not None and abs(loss - recorded[step]) <= allowed
        differing += not agree
        print(f"{step:4d}  {recorded[step]:13.6f}  {loss:13.6f}{'' if agree else '  differs'}")
    return 1 if differing else 0
