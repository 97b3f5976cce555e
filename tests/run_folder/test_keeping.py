"""`keep_last` and `keep_best` in the run's own hands: what stays on the disk after each checkpoint."""

import json
from pathlib import Path

from dynalign.actors.run_spec import RunSpec
from dynalign.configs.sections.checkpoint import CheckpointSettings
from dynalign.run_folder import owner
from dynalign.run_folder.checkpoint import verify
from dynalign.run_folder.heldout import HeldoutItem
from dynalign.run_folder.metrics import MetricsLog
from tests.actors.coordinator.test_full_disk import Learner, names, write
from tests.worlds.ledger_actor_world import RUN


def spec_with(folder: Path, keep_last: int, keep_best: int) -> RunSpec:
    run = RUN.model_copy(update={"checkpoint": CheckpointSettings(keep_last=keep_last, keep_best=keep_best)})
    return RunSpec(run, str(folder), owner.acquire(folder, now_s=1.0).lineage, 0, "hash")


def evaluated(folder: Path, rewards: dict[int, float]) -> None:
    """Two held-out answers a step, of which only those without the system prompt count."""
    with MetricsLog(folder, tensorboard=False, lineage=1) as log:
        for step, reward in rewards.items():
            for prompted, score in ((False, reward), (True, 5.0 - reward)):
                log.write_heldout([HeldoutItem(step, 1, "p", "", prompted, score, "", 1, False)])


def test_the_newest_and_the_best_stay_as_the_run_goes_on(tmp_path: Path) -> None:
    spec = spec_with(tmp_path, keep_last=2, keep_best=1)
    learner = Learner(100)
    left = []
    for step, reward in {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5, 5: 4.0, 6: 1.0, 7: 1.0}.items():
        evaluated(tmp_path, {step: reward})
        write(spec, step, learner)
        left.append([int(name[-1]) for name in names(tmp_path / "checkpoints")])
    assert left == [[1], [1, 2], [1, 2, 3], [1, 3, 4], [1, 4, 5], [1, 5, 6], [5, 6, 7]]
    assert all(verify(folder).run == RUN.name for folder in (tmp_path / "checkpoints").iterdir())


def test_without_a_best_to_keep_the_evaluations_are_not_read(tmp_path: Path) -> None:
    spec = spec_with(tmp_path, keep_last=1, keep_best=0)
    (tmp_path / "heldout.jsonl").write_text(json.dumps({"no": "item"}) + "\n")
    for step in (1, 2):
        write(spec, step, Learner(100))
    assert names(tmp_path / "checkpoints") == ["step-000002"]


def test_a_checkpoint_that_a_kill_left_half_removed_goes_with_the_next_one(tmp_path: Path) -> None:
    spec = spec_with(tmp_path, keep_last=1, keep_best=0)
    whole = write(spec, 1, Learner(100))
    (whole / "manifest.json").unlink()  # as a kill in the middle of a removal leaves it
    assert names(tmp_path / "checkpoints") == ["step-000001"]
    write(spec, 2, Learner(100))
    assert names(tmp_path / "checkpoints") == ["step-000002"]
