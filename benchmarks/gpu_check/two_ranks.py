"""Stage: ZeRO 2 and 3 on two ranks give the same steps as one rank, on the same recorded groups.

Each rank is a process (`rank.py`), on a GPU of its own; in a dry run on the CPU, by Gloo instead of NCCL.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from dynalign.benchmarks.gpu_check.made_groups import made_groups
from dynalign.benchmarks.gpu_check.random_models import random_model
from dynalign.benchmarks.gpu_check.rank import CANDIDATES, GROUPS
from dynalign.benchmarks.gpu_check.runs import overrides
from dynalign.benchmarks.gpu_check.site import Site, require, visible_gpus
from dynalign.benchmarks.gpu_check.two_gpus import needs_two_gpus
from dynalign.configs.errors import RunFailed

STAGES = (2, 3)
_PROMPT_TOKENS = 64
SAME = 0.02
"""Largest relative difference of a step's gradient norm: in bfloat16 another order of the sums rounds
otherwise, and a lost row would move it much further."""


def measure(site: Site) -> None:
    needs_two_gpus(site)
    model = random_model(site, "0.6B")
    groups = site.own / "groups.arrow"
    longest = 128 if site.device == "gpu" else 12
    completions_G = range(longest, longest - CANDIDATES, -1)
    groups.write_bytes(made_groups(model, GROUPS, _PROMPT_TOKENS, completions_G))
    alone = _trained(site, model, groups, ranks=1, stage=1)
    for stage in STAGES:
        together = _trained(site, model, groups, ranks=2, stage=stage)
        worst = max(
            abs(two["grad_norm"] / one["grad_norm"] - 1) for one, two in zip(alone, together, strict=True)
        )
        site.figure(
            **{
                f"zero_{stage}_grad_norm_difference": worst,
                f"zero_{stage}_learn_tokens_per_s": together[-1]["learn_tokens_per_s"],
            }
        )
        require(worst < SAME, f"ZeRO {stage} on two ranks: the gradient norm is {worst:.1%} off one rank's")
    site.figure(one_rank_learn_tokens_per_s=alone[-1]["learn_tokens_per_s"])


def _trained(site: Site, model: Path, groups: Path, ranks: int, stage: int) -> list[dict[str, float]]:
    """The reports of rank 0, a step each. Raises RunFailed when a rank fails."""
    chosen = overrides(
        site, model, f"learner.ranks={ranks}", f"learner.zero_stage={stage}", "placement.mode=separate"
    )
    out = site.own / f"ranks-{ranks}-zero-{stage}.json"
    port = _free_port()
    gpus = visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), ranks)
    children = []
    for rank in range(ranks):
        environment = os.environ | {
            "RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "CUDA_VISIBLE_DEVICES": gpus[rank],
        }
        command = [
            sys.executable,
            "-m",
            "dynalign.benchmarks.gpu_check.rank",
            str(model),
            str(groups),
            str(out),
        ]
        log = site.note(f"ranks-{ranks}-zero-{stage}-{rank}.log").open("w")
        with log:
            children.append(
                subprocess.Popen(
                    [*command, *chosen], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            )
    codes = [child.wait(timeout=max(site.left_s, 1.0)) for child in children]
    if any(codes):
        raise RunFailed(
            f"with ZeRO {stage}, {ranks} ranks ended with {codes}; their logs are beside this one"
        )
    reports: list[dict[str, float]] = json.loads(out.read_text())
    return reports


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
