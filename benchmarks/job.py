"""One job in a process of its own: `python -m benchmarks.job NAME SCRATCH`. Writes the samples, as JSON, where the workload says."""

import importlib
import json
import os
import sys
from pathlib import Path

from benchmarks.catalog import JOBS
from benchmarks.workload import Workload


def main(name: str, scratch: Path) -> None:
    place = JOBS[name].core
    if place is not None:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[place]})  # before any library counts the cores
    workload = Workload.read(scratch)
    samples = importlib.import_module(f"benchmarks.{name}").measure(workload)
    workload.samples_file(name).write_text(json.dumps(samples))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
