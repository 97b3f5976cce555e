"""Stage: how far engine and learner are apart in bfloat16, on the same tokens under the same weights.

The small trained model where its folder is given, because a random one is near uniform; else a random one.
"""

from pathlib import Path

from dynalign.benchmarks.gpu_check.random_models import random_model
from dynalign.benchmarks.gpu_check.reference import WRONG_NATS
from dynalign.benchmarks.gpu_check.runs import overrides, trained
from dynalign.benchmarks.gpu_check.site import Site, require

STEPS = 2


def measure(site: Site) -> None:
    real = site.real_model is not None
    model = Path(site.real_model) if site.real_model is not None else random_model(site, "0.6B")
    chosen = overrides(
        site,
        model,
        "rollout.eager=true",
        "rollout.record_behaviour=true",
        "algorithm.max_staleness=0",
        "prompts.max_tokens=1400",
    )
    site.figure(model=model.name, trained_model=str(real))
    run = trained(site, chosen, STEPS)
    for row in run.rows:
        site.figure(
            **{
                f"step_{row['step']}_{name}": row[name]
                for name in ("logprob_mismatch_mean", "ratio_mean", "ratio_max", "effective_sample_size")
                if row[name] is not None
            }
        )
    worst = max(row["logprob_mismatch_mean"] for row in run.rows)
    require(
        worst < WRONG_NATS, f"engine and learner differ by {worst:.3f} nats a token: not the same function"
    )
