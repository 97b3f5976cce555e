"""Stages `generation`, `learning`, `scoring` and `weight-sync`: the jobs of `make bench` on random weights.

A job's samples become medians, and its ratios are the benchmark's own (`benchmarks/catalog.py`).
"""

import importlib
import shutil
import tempfile
from pathlib import Path

from dynalign.benchmarks import record
from dynalign.benchmarks.catalog import RATIOS
from dynalign.benchmarks.gpu_check.random_models import random_model
from dynalign.benchmarks.gpu_check.runs import overrides
from dynalign.benchmarks.gpu_check.site import Site
from dynalign.benchmarks.result import figures_of, quotient
from dynalign.benchmarks.workload import Workload

_SHARED_MEMORY = Path("/dev/shm")
_EAGER = "rollout.eager=true"
"""Where graphs change nothing that is compared, they are not captured: it takes a minute."""
_SMALL_STEPS = "learner.learning_rate=1e-6"
"""Plain torch's two forms train one model in turn, and the gradients of their first steps must agree."""
CHANGED = {
    "generation": (),
    "learning": (_EAGER, _SMALL_STEPS),
    "scoring": (_EAGER,),
    "weight_sync": (_EAGER, "rollout.max_completion_tokens=1024"),
}
"""Job → overrides beside those of every run. Rows have the shipped length: with longer ones plain torch,
which has the logits of a whole row at once, does not fit into 80 GB."""
_MODELS = 1.2
"""Copies of the model's files that shared memory must have room for: a job writes one there."""


def measure(site: Site) -> None:
    job = site.stage.replace("-", "_")
    model = random_model(site, "1.7B")
    with tempfile.TemporaryDirectory(prefix="dynalign-check-", dir=memory_folder(site, model)) as memory:
        chosen = tuple(
            override
            for override in overrides(site, model, *CHANGED[job])
            if not override.startswith(("date=", "judge.min_digit_mass="))  # the workload sets them
        )
        workload = Workload(model, site.common, Path(memory), site.device == "cpu", site.device, chosen)
        if job in ("learning", "scoring") and not workload.groups_file.exists():
            record.measure(workload)
        samples = importlib.import_module(f"dynalign.benchmarks.{job}").measure(workload)
    figures = figures_of(samples)
    site.figure(**{name: figure.median for name, figure in figures.items()})
    for name, ratio in RATIOS.items():
        if ratio.over in figures and ratio.under in figures:
            site.figure(**{name: quotient(name, figures)})
            site.figure(**{f"{name}_aim": ratio.aim})


def memory_folder(site: Site, model: Path, shared_memory: Path = _SHARED_MEMORY) -> Path:
    """Where a job writes what it wants in memory: shared memory, or the stage's own folder where that is too
    small for the model, as containers often have it. What was just written is in the kernel's cache there."""
    needed_bytes = _MODELS * sum(file.stat().st_size for file in model.iterdir())
    roomy = shared_memory.is_dir() and shutil.disk_usage(shared_memory).free > needed_bytes
    return shared_memory if roomy else site.own
