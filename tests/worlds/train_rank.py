"""A rank as a process: `python -m tests.worlds.train_rank RANK WORLD_SIZE PORT MODEL OUT CASE…`.

Trains two steps per case. Rank 0 writes the report and the weights of each case to OUT. Then the learner
saves: once on a disk with space, once for each rank with that rank's disk full, and once more with space.
Every rank writes to OUT what each save raised.
"""

import faulthandler
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from tests.worlds.one_rank import rank_environment

CASES: dict[str, dict[str, Any]] = {
    "zero-1": {"zero_stage": 1},
    "zero-3": {"zero_stage": 3},
    "zero-3-minibatches-kl-adapters": {
        "zero_stage": 3,
        "minibatches": 2,
        "kl_coef": 0.1,
        "lora": {"rank": 4},
    },
    "zero-2-one-sequence": {"zero_stage": 2, "group_size": 2},
}

HANGS_S = 480.0
"""A process that takes longer prints its stacks and ends. An idle machine takes a twentieth of it."""
SAVE_S = 60.0
"""A save that takes longer has waited for a rank that did not come; the collectives wait much longer."""


def groups_of(case: str, step: int) -> list[Any]:
    from tests.worlds.tiny_groups import candidate, group, random_groups

    if case.endswith("one-sequence"):  # the second of two ranks has an empty row
        return [group(1, [3, 4, 5], [candidate([6, 7], 1.0), candidate([], 0.0)])]
    return random_groups(3, seed=step, behaviour=True)


def train(
    case: str, model: Path, rank: int, world_size: int, out: Path | None = None
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    from dynalign.configs.sections.learner import LoraSettings
    from dynalign.learner.weights import read_version
    from tests.worlds.one_rank import Learner
    from tests.worlds.tiny_groups import payloads
    from tests.worlds.tiny_models import settings

    changed = dict(CASES[case])
    if "lora" in changed:
        changed["lora"] = LoraSettings(**changed["lora"])
    learner = Learner(settings(model, **changed), model, rank, world_size)
    for step in (1, 2):
        learner.prepare(step, *payloads(groups_of(case, step)))
        report = learner.run(step)
    if out is not None:
        raised = saves(learner, out / f"{case}.checkpoints", rank, world_size)
        (out / f"{case}.rank-{rank}.json").write_text(json.dumps(raised))
    version = learner.weights(1)
    return None if version is None else (report, dict(read_version(*version)))


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow past a kilobyte, as if its disk were full. Other ranks can write."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def outcome(save: Any, folder: Path, full: bool) -> tuple[str, float]:
    """What a save raises ("": nothing), and the seconds that it takes."""
    from dynalign.configs.errors import CheckpointError

    started_s = time.monotonic()
    try:
        with full_disk() if full else nullcontext():
            save(folder)
    except CheckpointError as error:
        return str(error), time.monotonic() - started_s
    return "", time.monotonic() - started_s


def saves(learner: Any, folder: Path, rank: int, world_size: int) -> dict[str, tuple[str, float]]:
    """Name of the save → its outcome."""
    raised = {"whole": outcome(learner.save, folder / "whole", full=False)}
    for full in range(world_size):
        raised[f"state, rank {full} full"] = outcome(learner.save, folder / f"full-{full}", full=rank == full)
    raised["model, rank 0 full"] = outcome(learner.export, folder / "hf-full", full=rank == 0)
    raised["whole again"] = outcome(learner.save, folder / "again", full=False)
    raised["model"] = outcome(learner.export, folder / "hf", full=False)
    return raised


if __name__ == "__main__":
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    rank, world_size, port = (int(value) for value in sys.argv[1:4])
    os.environ.update(rank_environment(rank, world_size, port))
    model, out = Path(sys.argv[4]), Path(sys.argv[5])
    for name in sys.argv[6:]:
        trained = train(name, model, rank, world_size, out)
        if trained is not None:
            from safetensors.torch import save_file

            (out / f"{name}.json").write_text(json.dumps(trained[0]))
            save_file(trained[1], out / f"{name}.safetensors")
    from torch.distributed import destroy_process_group

    destroy_process_group()  # a rank that ends while gloo's threads still run may abort
