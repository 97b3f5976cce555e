"""One rank as a process: `python -m dynalign.benchmarks.gpu_check.rank MODEL GROUPS OUT [KEY=VALUE]…`.

Trains the same groups in every step; rank 0 writes the reports. Its environment is that of
`learner/deepspeed_engine.py`.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dynalign.benchmarks.gpu_check.runs import settings_of

STEPS = 3
GROUPS = 4
CANDIDATES = 4
_REPORTED = ("loss", "grad_norm", "learn_s", "learn_tokens_per_s")


def main(model: Path, groups: Path, out: Path, chosen: Sequence[str]) -> None:
    settings = settings_of(
        (*chosen, f"rollout.prompts_per_step={GROUPS}", f"rollout.group_size={CANDIDATES}")
    )
    if settings.placement.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    from torch.distributed import destroy_process_group

    from dynalign.learner.learner import Learner  # reads the environment

    rank = int(os.environ["RANK"])
    learner = Learner(settings, model, rank, int(os.environ["WORLD_SIZE"]))
    reports = []
    for step in range(1, STEPS + 1):
        learner.prepare(step, [groups.read_bytes()], [groups.name])
        report = learner.run(step)
        reports.append({name: report[name] for name in _REPORTED})
    if rank == 0:
        out.write_text(json.dumps(reports))
    destroy_process_group()  # a rank that ends while Gloo's threads still run may abort


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
