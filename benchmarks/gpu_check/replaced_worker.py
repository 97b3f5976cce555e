"""Stage: the only worker is killed; its replacement starts an engine beside the learner."""

from dynalign.benchmarks.gpu_check.random_models import random_model
from dynalign.benchmarks.gpu_check.runs import SPLIT, overrides, trained
from dynalign.benchmarks.gpu_check.site import Site, require
from dynalign.benchmarks.memory import PeakMemory
from dynalign.benchmarks.workload import Device
from dynalign.run_folder.events import read_events
from dynalign.run_folder.metrics import read_metrics

STEPS: dict[Device, int] = {"gpu": 6, "cpu": 12}
"""In a dry run a step takes a second, and the run must not end before the worker is killed."""
_KILLED_AFTER = 2
"""Steps: by then both have all their memory."""


def measure(site: Site) -> None:
    model = random_model(site, "0.6B")
    chosen = overrides(site, model, *SPLIT[site.device], "rollout.eager=true")
    folder = site.own / "runs" / site.stage
    killed: list[int] = []

    def kill_once(memory: PeakMemory) -> None:
        if killed or not folder.exists() or len(read_metrics(folder)) <= _KILLED_AFTER:
            return
        for process in memory.processes("rollout_worker"):
            process.kill()
            killed.append(process.pid)

    trained(site, chosen, STEPS[site.device], kill_once)
    recovered = [
        event for event in read_events(folder) if (event.kind, event.what) == ("worker", "recovered")
    ]
    site.figure(killed=len(killed), recovered=len(recovered))
    require(bool(killed), "no worker was found to kill")
    require(bool(recovered), "no worker was replaced")
    site.figure(lost_s=recovered[0].lost_s or 0.0)
