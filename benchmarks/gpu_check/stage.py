"""One stage in a process of its own: `python -m dynalign.benchmarks.gpu_check.stage MODULE SITE`."""

import importlib
import os
import sys
from pathlib import Path

# Otherwise asking whether there is a GPU would initialize CUDA, which a forked engine cannot do again.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
# Nothing is fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

from dynalign.benchmarks.gpu_check.site import Site, visible_gpus
from dynalign.configs.errors import NotMeasurable

ALL_GPUS = ("facts", "two_gpus", "two_ranks")
"""The modules that see every GPU of the machine. All others prove what one GPU does."""


def main(module: str, file: Path) -> None:
    site = Site.read(file)
    if site.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    elif module not in ALL_GPUS:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), 1)[0]
    try:
        importlib.import_module(f"dynalign.benchmarks.gpu_check.{module}").measure(site)
    except NotMeasurable as error:
        site.reason_file.write_text(str(error))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
