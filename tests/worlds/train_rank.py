"""One of several ranks, as a process of its own: `python -m tests.train_rank RANK WORLD_SIZE PORT MODEL OUT CASE…`.

Trains two steps per case; rank 0 writes report and weights of each case to OUT. Then saves: whole, with each rank in turn unable to
write more than a few bytes, and whole again; every rank writes to OUT what it heard.
"""

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
    "zero-2-one-sequence": {"zero_stage": 2},
}


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
        told = saves(learner, out / f"{case}.checkpoints", rank, world_size)
        (out / f"{case}.rank-{rank}.json").write_text(json.dumps(told))
    version = learner.weights(1)
    return None if version is None else (report, dict(read_version(*version)))


@contextmanager
def no_room() -> Iterator[None]:
    """This process can write no file past a kilobyte: its disk is full, and that of no other rank."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def heard(save: Any, folder: Path, full: bool) -> tuple[str, float]:
    """What a save raises, and the seconds that it takes."""
    from dynalign.configs.errors import CheckpointError

    started_s = time.monotonic()
    try:
        with no_room() if full else nullcontext():
            save(folder)
    except CheckpointError as error:
        return str(error), time.monotonic() - started_s
    return "", time.monotonic() - started_s


def saves(learner: Any, folder: Path, rank: int, world_size: int) -> dict[str, tuple[str, float]]:
    told = {"whole": heard(learner.save, folder / "whole", full=False)}
    for full in range(world_size):
        told[f"state, rank {full} full"] = heard(learner.save, folder / f"full-{full}", full=rank == full)
    told["model, rank 0 full"] = heard(learner.export, folder / "hf-full", full=rank == 0)
    told["whole again"] = heard(learner.save, folder / "again", full=False)
    told["model"] = heard(learner.export, folder / "hf", full=False)
    return told


if __name__ == "__main__":
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
