"""The environment of the libraries that the tests load: quiet, and on few cores."""

import os

from hypothesis import settings

# Set before a library reads them. A test machine has few cores, which several processes share.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# A shared machine stalls now and then, so Hypothesis sets no deadline. Its examples are the same every time,
# so that a new failure comes from a change of the code.
settings.register_profile("dynalign", deadline=None, derandomize=True)
settings.load_profile("dynalign")
