"""TRL in a virtual environment of its own, in the scratch folder: it sees the libraries of this one, and this
one does not see it.

Both sides then run on the same torch and transformers. A library of which TRL wants another version is
installed beside it.
"""

import os
import site
import venv
from pathlib import Path

from dynalign.benchmarks.catalog import TRL
from dynalign.benchmarks.process import run_python
from dynalign.benchmarks.workload import Workload

_INSTALL_DEADLINE_S = 500.0


def trl_python(scratch: Path) -> Path:
    """The interpreter of TRL's environment, which the job `trl_environment` makes."""
    return scratch / "trl" / "bin" / "python"


def measure(workload: Workload) -> dict[str, list[float]]:
    """Measures nothing. Raises RunFailed with pip's last line."""
    python = trl_python(workload.scratch)
    venv.create(python.parents[1], symlinks=True)
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({folder!r})" for folder in site.getsitepackages()]
    (packages / "these_libraries.pth").write_text("\n".join(lines) + "\n")
    log = workload.scratch / "trl-install.log"
    run_python(
        ["-m", "pip", "--python", str(python), "install", "--quiet", TRL],
        log,
        _INSTALL_DEADLINE_S,
        os.environ,
    )
    return {}
