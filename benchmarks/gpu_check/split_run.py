"""Stage: engine and learner at once on one GPU, split by memory, asynchronous, with captured graphs."""

from dynalign.benchmarks.gpu_check.actor_memory import beside_the_plan
from dynalign.benchmarks.gpu_check.random_models import random_model
from dynalign.benchmarks.gpu_check.runs import FALLBACK, SPLIT, overrides, planned, trained
from dynalign.benchmarks.gpu_check.site import Site, require
from dynalign.benchmarks.gpu_check.step_figures import step_figures

STEPS = 6


def measure(site: Site) -> None:
    model = random_model(site, "0.6B")
    chosen = overrides(site, model, *SPLIT[site.device])
    run = trained(site, chosen, STEPS)
    plan = planned(chosen, model)
    fallbacks = run.told.count(FALLBACK)
    site.figure(
        transport=plan.transport.name,
        fallbacks=fallbacks,
        **step_figures(run, "asynchronous"),
        **beside_the_plan(run.peaks_mib, plan),
    )
    require(
        not fallbacks, f"{fallbacks} versions came through the object store, not by {plan.transport.name}"
    )
