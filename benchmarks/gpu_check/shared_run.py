"""Stage: the shape of `single-gpu`, engine and learner in turn, to the end and on from its checkpoint."""

import shutil
from pathlib import Path

from dynalign.benchmarks.gpu_check.actor_memory import beside_the_plan
from dynalign.benchmarks.gpu_check.random_models import Size, free_gpu, random_model
from dynalign.benchmarks.gpu_check.reference import WRONG_NATS, loaded, logprobs_T
from dynalign.benchmarks.gpu_check.runs import Trained, overrides, planned, trained
from dynalign.benchmarks.gpu_check.site import Site, require
from dynalign.benchmarks.gpu_check.step_figures import step_figures
from dynalign.launch.commands.export import export
from dynalign.run_folder import layout

STEPS = 6
MORE_STEPS = 2
_IDS = tuple(range(300, 364))
_DISK_BYTES = 66 * 10**9
"""For the 1.7B model, two of its checkpoints (28 GB each) and what is exported."""


def measure(site: Site) -> None:
    size: Size = "1.7B" if shutil.disk_usage(site.own).free > _DISK_BYTES else "0.6B"
    model = random_model(site, size)
    # Eager: compiling takes a minute at each of two starts, and the stage split-run captures graphs.
    chosen = overrides(
        site, model, "rollout.eager=true", "rollout.mismatch_fraction=1", "algorithm.max_staleness=0"
    )
    site.figure(model=size)
    first = trained(site, chosen, STEPS)
    site.figure(
        **step_figures(first, "synchronous"), **beside_the_plan(first.peaks_mib, planned(chosen, model))
    )
    _exported(site, first, model)
    more = trained(site, chosen, STEPS + MORE_STEPS)
    resumed = [row for row in more.rows if row["step"] > STEPS]
    require(
        all(row["lineage"] > first.rows[-1]["lineage"] for row in resumed),
        "the steps after the resume do not have a newer lineage",
    )
    for name, row in (("before", first.rows[-1]), ("after", resumed[0])):
        apart_nats = row["logprob_mismatch_mean"]
        require(apart_nats is not None, f"the step {name} the resume compared no token")
        site.figure(**{f"mismatch_{name}_resume_nats": apart_nats})
        require(
            apart_nats < WRONG_NATS,
            f"{name} the resume, engine and learner differ by {apart_nats} nats a token",
        )


def _exported(site: Site, run: Trained, initial: Path) -> None:
    """Requires of the exported model that it is the checkpoint, to the bit, and not the initial model."""
    out = site.own / "exported"
    export(run.folder, out, None)
    checkpoint = layout.step_folder(run.folder / layout.CHECKPOINTS, STEPS) / layout.EXPORTED_MODEL
    names = {"exported": out, "checkpoint": checkpoint, "initial": initial}
    logprobs = {name: logprobs_T(loaded(folder, site.device), _IDS) for name, folder in names.items()}
    free_gpu()
    apart_nats = float((logprobs["exported"] - logprobs["checkpoint"]).abs().max())
    moved_nats = float((logprobs["exported"] - logprobs["initial"]).abs().mean())
    site.figure(reload_difference_nats=apart_nats, moved_by_training_nats=moved_nats)
    require(apart_nats == 0, f"the exported model differs from its checkpoint by {apart_nats} nats")
    require(moved_nats > 0, "the exported model is the initial one")
    shutil.rmtree(out)  # the next checkpoint needs the disk
