"""Stage: engine and learner with a GPU each; versions travel by NCCL.

A dry run has no GPU to send from: its versions take the object store, the fallback of NCCL.
"""

import torch

from dynalign.benchmarks.gpu_check.random_models import random_model
from dynalign.benchmarks.gpu_check.runs import FALLBACK, overrides, trained
from dynalign.benchmarks.gpu_check.site import Site, require
from dynalign.benchmarks.gpu_check.step_figures import step_figures
from dynalign.benchmarks.workload import Device
from dynalign.configs.errors import NotMeasurable

STEPS = 6
_TRANSPORT: dict[Device, str] = {"gpu": "nccl", "cpu": "object_store"}


def needs_two_gpus(site: Site) -> None:
    """Raises NotMeasurable on a machine with one GPU."""
    gpus = torch.cuda.device_count()
    if site.device == "gpu" and gpus < 2:
        raise NotMeasurable(f"it takes two GPUs, and there is {gpus}")


def measure(site: Site) -> None:
    needs_two_gpus(site)
    model = random_model(site, "0.6B")
    transport = _TRANSPORT[site.device]
    chosen = overrides(
        site,
        model,
        "placement.mode=separate",
        "algorithm.max_staleness=1",
        "rollout.eager=true",
        f"weights.transport={transport}",
    )
    run = trained(site, chosen, STEPS)
    fallbacks = run.told.count(FALLBACK)
    site.figure(transport=transport, fallbacks=fallbacks, **step_figures(run, "asynchronous"))
    # The first version may find a worker that has not joined yet.
    require(
        fallbacks <= 1, f"{fallbacks} of {STEPS} versions came through the object store, not by {transport}"
    )
