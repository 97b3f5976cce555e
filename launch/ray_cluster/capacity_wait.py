"""Waits until a running cluster has the capacity for a run, and asks its autoscaler for it.

Actors that cannot be scheduled also make the autoscaler add nodes, but one by one: the run would hold GPUs
while the rest never comes. So the driver requests everything that the run starts with at once, and creates
no actor before it is there. On a cluster without an autoscaler the request has no effect, and the driver
only waits.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from ray.autoscaler.sdk import request_resources

from dynalign.configs.errors import Mistake, UserError
from dynalign.launch.plan.nodes import Cluster, from_ray
from dynalign.launch.plan.plan import PlacementPlan
from dynalign.launch.plan.refusals import cluster_refusals
from dynalign.launch.ray_cluster.connection import node_rows

_POLL_S = 1.0


def wait_for_capacity(plan: PlacementPlan, deadline_s: float, waiting: Callable[[Mistake], None]) -> Cluster:
    """The cluster that this process has joined, as soon as it could hold the plan if nobody else used it.

    waiting: called about once a second with the figure that does not fit; an exception from it ends the wait.
    Raises UserError with the figures that do not fit at the deadline; nothing has been started then.
    """
    lacking, cluster = _lacking(plan)
    if not lacking:
        return cluster
    until_s = time.monotonic() + deadline_s
    with _requested(shapes(plan)):
        while lacking:
            if time.monotonic() > until_s:
                waited = f", and so it was for {deadline_s:g} s (deadlines.place_s)"
                raise UserError([replace(each, rule=each.rule + waited) for each in lacking])
            waiting(lacking[0])
            time.sleep(_POLL_S)
            lacking, cluster = _lacking(plan)
    return cluster


def shapes(plan: PlacementPlan) -> list[dict[str, float]]:
    """Cores and GPUs of all that must run at one time: an entry per bundle and per actor outside them."""
    together = {name for bundle in plan.bundles for name in bundle.actors}
    settings = plan.settings
    threads = {
        plan.rollout.name: settings.rollout.engine_threads,
        plan.learner.name: settings.learner.threads,
    }
    if plan.pool is not None and settings.judge.pool is not None:
        threads[plan.pool.name] = settings.judge.pool.engine_threads
    alone = [
        (threads[actor.name], actor.gpus_per_actor * actor.gpu_share)
        for actor in sorted(plan.actors, key=lambda each: each is not plan.learner)
        for index in range(actor.count)
        if f"{actor.name}-{index}" not in together
    ]
    wanted = [*((bundle.cpus, bundle.gpus) for bundle in plan.bundles), *alone]
    return [{"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {}) for cpus, gpus in wanted]


def _lacking(plan: PlacementPlan) -> tuple[list[Mistake], Cluster]:
    cluster = from_ray(node_rows())
    return cluster_refusals(plan, cluster), cluster


@contextmanager
def _requested(shapes: list[dict[str, float]]) -> Iterator[None]:
    """Makes the autoscaler provide these shapes as long as the context lasts.

    New nodes then stay for its idle timeout, which is far longer than it takes to create the actors. Ray
    keeps one request per cluster: of two runs that wait, the later one replaces the other's.
    """
    request_resources(bundles=shapes)
    try:
        yield
    finally:
        request_resources(bundles=[])
