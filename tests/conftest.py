"""A quiet, small environment for the libraries that the tests load."""

import os

from hypothesis import settings

# Before any library reads them. A test machine has few cores, and several processes share them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# A shared machine stalls now and then, so slowness is no failure; the same examples every time, so that a failure is a change.
settings.register_profile("dynalign", deadline=None, derandomize=True)
settings.load_profile("dynalign")
