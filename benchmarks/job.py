"""One job in a process of its own: `python -m dynalign.benchmarks.job NAME SCRATCH`.

Writes its samples as JSON into the workload's file, or the reason why it cannot run on this machine.
"""

import importlib
import json
import os
import sys
from pathlib import Path

from dynalign.benchmarks.catalog import JOBS, module_of
from dynalign.benchmarks.workload import Workload
from dynalign.configs.errors import NotMeasurable


def main(name: str, scratch: Path) -> None:
    core = JOBS[name].core
    workload = Workload.read(scratch)
    if core is not None and workload.device == "cpu":
        # before any library counts the cores
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})
    measure = importlib.import_module(module_of(name)).measure
    try:
        workload.samples_file(name).write_text(json.dumps(measure(workload)))
    except NotMeasurable as error:
        workload.reason_file(name).write_text(str(error))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
