"""Room in a running cluster: asked of its autoscaler, and waited for, before any actor is created.

Actors that find no place would ask for it, too, but one by one: a run would hold GPUs while the rest never comes. So the driver asks
for all that the run starts with at once, and creates nothing before it is there. A cluster without an autoscaler is merely waited for.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import ray
from ray.autoscaler.sdk import request_resources

from dynalign.configs.errors import Mistake, UserError
from dynalign.launch.plan.nodes import Cluster, from_ray
from dynalign.launch.plan.plan import PlacementPlan
from dynalign.launch.plan.refusals import cluster_refusals

_POLL_S = 1.0


def wait_for_capacity(plan: PlacementPlan, deadline_s: float, waiting: Callable[[Mistake], None]) -> Cluster:
    """The cluster that this process has joined, as soon as it could hold the plan if nobody else used it.

    :param waiting: called about once a second with the figure that does not fit; what it raises ends the wait.
    :raises UserError: with the figures that do not fit at the deadline; nothing has been started.
    """
    lacking, cluster = _lacking(plan)
    if not lacking:
        return cluster
    until_s = time.monotonic() + deadline_s
    with _asked_for(shapes(plan)):
        while lacking:
            if time.monotonic() > until_s:
                waited = f", and so it was for {deadline_s:g} s (deadlines.place_s)"
                raise UserError([replace(each, rule=each.rule + waited) for each in lacking])
            waiting(lacking[0])
            time.sleep(_POLL_S)
            lacking, cluster = _lacking(plan)
    return cluster


def shapes(plan: PlacementPlan) -> list[dict[str, float]]:
    """Cores and GPUs of everything that must run at one time: of a reserved bundle as one, of each other actor by itself."""
    together = {name for bundle in plan.bundles for name in bundle.actors}
    threads = {"rollout": plan.settings.rollout.engine_threads, "learner": plan.settings.learner.threads}
    alone = [
        (threads[actor.name], actor.gpus_per_actor * actor.gpu_share)
        for actor in (plan.learner, plan.rollout)
        for index in range(actor.count)
        if f"{actor.name}-{index}" not in together
    ]
    wanted = [*((bundle.cpus, bundle.gpus) for bundle in plan.bundles), *alone]
    return [{"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {}) for cpus, gpus in wanted]


def _lacking(plan: PlacementPlan) -> tuple[list[Mistake], Cluster]:
    cluster = from_ray(ray.nodes())
    return cluster_refusals(plan, cluster), cluster


@contextmanager
def _asked_for(shapes: list[dict[str, float]]) -> Iterator[None]:
    """The autoscaler keeps room for these until it is told otherwise. Nodes that have come then stay for its idle timeout, far longer
    than actors take to be placed. Ray keeps one such request per cluster: of two runs that wait, the later one is heard."""
    request_resources(bundles=shapes)
    try:
        yield
    finally:
        request_resources(bundles=[])
