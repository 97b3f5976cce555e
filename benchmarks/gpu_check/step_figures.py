"""What the rows of a run say about its steps."""

from collections.abc import Sequence
from statistics import median
from typing import Literal

from dynalign.benchmarks.gpu_check.outcomes import Measured
from dynalign.benchmarks.gpu_check.runs import Trained
from dynalign.benchmarks.whole_run import WARM_UP_STEPS, step_times
from dynalign.run_folder import layout
from dynalign.run_folder.metrics import Row

_NAMES = (
    "step_s",
    "generate_s",
    "score_s",
    "learn_s",
    "weight_sync_s",
    "weight_sync_pause_s",
    "completion_tokens",
    "generate_tokens_per_s",
    "learn_tokens_per_s",
    "logprob_mismatch_mean",
    "ratio_mean",
    "effective_sample_size",
    "reward_mean",
    "grad_norm",
    "weight_bytes",
)


def medians(rows: Sequence[Row]) -> dict[str, Measured]:
    """Median over the steps of each value that the rows have."""
    found = {name: [row[name] for row in rows if row[name] is not None] for name in _NAMES}
    return {f"median_{name}": median(values) for name, values in found.items() if values}


def step_figures(run: Trained, kind: Literal["synchronous", "asynchronous"]) -> dict[str, Measured]:
    """Medians of the steps after the warm-up; of an asynchronous run also its wall against the slower
    side."""
    figures = medians(run.rows[WARM_UP_STEPS:])
    if kind == "synchronous":
        return figures
    samples = step_times(run.rows, run.folder / layout.EXPERIENCE)
    figures |= {f"median_{name}": median(values) for name, values in samples.items()}
    ratio = median(samples["step_wall_s"]) / median(samples["slower_side_s"])
    return figures | {"async_wall_vs_slower_side": ratio}
