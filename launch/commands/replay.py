"""`dynalign replay`: trains on the recorded groups of a run again, and compares each step with its record.

It needs neither Ray nor an engine: anyone who has the run folder and the model can repeat what the learner
did. The loss alone would show little: with one minibatch and no KL term it does not depend on the weights. So
gradient norm, entropy and learning rate are compared too, the advantages, and the weights with those of every
checkpoint that is kept.
"""

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.launch.models.folder import model_folder
from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.run_folder import checkpoint, layout
from dynalign.run_folder.layout import experience_file
from dynalign.run_folder.metrics import Row, read_metrics

_COMPARED = ("loss", "grad_norm", "entropy", "kl", "learning_rate")
"""Metrics of a step that are compared, by their names in `metrics.jsonl`."""
_TOLERANCE = 1e-3
"""Relative, for the steps before a run was first resumed. On the same machine they are equal to the bit."""
_TOLERANCE_RESUMED = 0.05
"""For the steps after that: a resumed run may have rounded its master weights once more."""
_LEAST = 1e-3
"""Values below this are compared as if they were this large."""
_WEIGHTS_TOLERANCE = 0.1
"""Largest distance of the replayed from the recorded weights, as a share of the distance that training moved
them."""


def replay(run_folder: Path, until: int | None = None) -> int:
    """Prints the recorded and the replayed figures of each step. Returns 0 if all agree, 1 if one does not.

    until: the last step to replay, from the nearest checkpoint before it; None replays all steps from the
    first one on.

    Raises UserError when the experience of a step on the way is missing, RecordError or CheckpointError for a
    damaged file.
    """
    settings = load_run(str(run_folder / layout.CONFIG)).settings
    recorded = {row["step"]: row for row in read_metrics(run_folder) if row["loss"] is not None}
    experience = run_folder / layout.EXPERIENCE
    checkpoints = checkpoint.whole(run_folder / layout.CHECKPOINTS)
    start = 0
    if until is not None and settings.learner.ranks == 1:
        start = max((step for step in checkpoints if step < until), default=0)
    steps = _steps(experience, recorded, start, until)
    learner, model = _learner(settings)
    if start:
        checkpoint.verify(checkpoints[start])  # the learner unpickles it
        learner.load(checkpoints[start] / layout.DEEPSPEED)
        print(f"from the checkpoint of step {start}")
    differing = 0
    print("step  recorded loss  replayed loss  recorded norm  replayed norm")
    for step in steps:
        file = experience_file(experience, step)
        payload = file.read_bytes()
        decoded = decode_groups([payload], [file.name])
        weighted = settings.judge.consistency_weight
        batch = TrainingBatch.of(decoded, settings.algorithm.advantage_scale, weighted)
        present_fraction = len(batch.groups_P) / settings.rollout.prompts_per_step
        learner.prepare(step, [payload], [file.name], present_fraction)
        report = learner.run(step)
        wrong = _wrong_figures(recorded[step], report, _resumed(recorded, step))
        if not _same_advantages(batch):
            wrong.append("advantages")
        print(_line(step, recorded[step], report) + (f"  differs: {', '.join(wrong)}" if wrong else ""))
        if step in checkpoints:
            wrong += _compare_weights(learner, step, checkpoints[step] / layout.EXPORTED_MODEL, model)
        differing += bool(wrong)
    return 1 if differing else 0


def _steps(experience: Path, recorded: Mapping[int, Row], start: int, until: int | None) -> list[int]:
    """The steps after `start` to replay, without a hole. Raises UserError for one that is not recorded."""
    kept = [step for step in sorted(recorded) if experience_file(experience, step).exists()]
    if until is None:
        if kept and kept == list(range(1, len(kept) + 1)):
            return kept
        rule = "has no experience of every step from the first one on"
        remedy = "replay a run made with experience.keep_steps=null and one rank"
        raise UserError([Mistake(str(experience), None, rule, remedy)])
    wanted = list(range(start + 1, until + 1))
    missing = [step for step in wanted if step not in kept]
    if missing:
        rule = f"has no record of step {missing[0]}, and steps {wanted[0]} to {until} are learned again"
        remedy = "name a step whose way from a checkpoint, or from the first step, is recorded"
        raise UserError([Mistake(str(experience), until, rule, remedy)])
    return wanted


def _learner(settings: RunSettings) -> tuple[Any, Path]:
    """The learner of one rank before the first step, and the folder of its model."""
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    if settings.placement.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    from dynalign.learner.learner import Learner  # reads the environment set above

    model = Path(model_folder(settings.model))
    return Learner(settings, model, 0, 1), model


def _resumed(recorded: Mapping[int, Row], step: int) -> bool:
    return bool(recorded[step]["lineage"] != recorded[min(recorded)]["lineage"])


def _wrong_figures(recorded: Row, replayed: Mapping[str, Any], resumed: bool) -> list[str]:
    """The names of the metrics that differ beyond the tolerance. One that only one side has differs."""
    relative = _TOLERANCE_RESUMED if resumed else _TOLERANCE
    wrong = []
    for name in _COMPARED:
        before = recorded[name]
        now = replayed[name]
        if before is None or now is None:
            if before is not now:
                wrong.append(name)
            continue
        least = 0.0 if name == "learning_rate" else _LEAST
        if abs(now - before) > relative * max(abs(before), least):
            wrong.append(name)
    return wrong


def _same_advantages(batch: TrainingBatch) -> bool:
    """Whether the recorded advantages are those that the recorded scores give, to the bit."""
    recorded = batch.candidates("advantage")
    return recorded == [advantage for advantages_G in batch.advantages_PG for advantage in advantages_G]


def _line(step: int, recorded: Row, replayed: Mapping[str, Any]) -> str:
    shown = (recorded["loss"], replayed["loss"], recorded["grad_norm"], replayed["grad_norm"])
    return f"{step:4d}" + "".join(
        "  " + ("-" if value is None else f"{value:.6f}").rjust(13) for value in shown
    )


def _compare_weights(learner: Any, step: int, recorded: Path, model: Path) -> list[str]:
    """Prints how far the replayed weights are from those of a checkpoint. Returns what differs: `weights`, or
    nothing."""
    with tempfile.TemporaryDirectory() as folder:
        learner.export(Path(folder))
        apart, moved = weight_distances(Path(folder), recorded, model)
    if apart == 0:
        print(f"{step:4d}  the weights of the checkpoint are equal to the bit")
        return []
    share = apart / moved if moved else math.inf
    agree = share <= _WEIGHTS_TOLERANCE
    print(
        f"{step:4d}  the weights are {share:.2g} of what training moved them "
        f"away from the checkpoint's{'' if agree else '  differs: weights'}"
    )
    return [] if agree else ["weights"]


def weight_distances(replayed: Path, recorded: Path, initial: Path) -> tuple[float, float]:
    """Euclidean distances over all weights of three Hugging Face folders: replayed to recorded, recorded to
    initial."""
    before = _tensors(recorded)
    first = _tensors(initial)
    now = _tensors(replayed)
    if now.keys() != before.keys():
        return math.inf, 1.0
    apart = 0.0
    moved = 0.0
    for name, read in now.items():
        then = before[name]().double()
        apart += float((read().double() - then).square().sum())
        if name in first:
            start = first[name]()
            moved += float((then - start.to(read().dtype).double()).square().sum())
    return apart**0.5, moved**0.5


def _tensors(folder: Path) -> dict[str, Any]:
    """Name → a function that reads the tensor, of all weights in a Hugging Face folder."""
    from safetensors import safe_open

    read: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())  # `tensors` is no mapping
        for name in names:
            read[name] = _reader(file, name)
    return read


def _reader(file: Path, name: str) -> Any:
    from safetensors import safe_open

    def read() -> Any:
        with safe_open(file, framework="pt") as tensors:
            return tensors.get_tensor(name)

    return read
