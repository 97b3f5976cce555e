"""How many runs of an experiment have room side by side: one on a laptop, more on a cluster."""

from dynalign.launch.plan.nodes import Cluster, from_ray
from dynalign.launch.plan.plan import PlacementPlan

MOST_AT_ONCE = 16
"""Drivers on one node: each takes half a gigabyte and a port or two, whatever the cluster holds."""


def room_for(plan: PlacementPlan, cluster: Cluster, most: int = MOST_AT_ONCE) -> int:
    """Runs of this plan that a cluster has room for at one time, by its GPUs and cores; at least one.

    Ray places the actors, and a run waits for capacity by itself where nodes are split unevenly."""
    if cluster.started_here:
        return 1  # each driver starts a Ray of its own on the same cores
    settings = plan.settings
    cores = sum(each.count * _threads(plan, each.name) for each in plan.actors)
    gpus = gpus_of(plan)
    rooms = [cluster.cores // max(1, cores)]
    if settings.placement.device == "gpu":
        rooms.append(cluster.gpus // max(1, gpus))
    return max(1, min([most, *rooms]))


def _threads(plan: PlacementPlan, actor: str) -> int:
    settings = plan.settings
    if actor == "learner":
        return settings.learner.threads
    if actor == "rollout" or settings.judge.pool is None:
        return settings.rollout.engine_threads
    return settings.judge.pool.engine_threads


def gpus_of(plan: PlacementPlan) -> int:
    """GPUs that a run takes; an engine that shares the learner's is not counted twice."""
    engines = plan.rollout.count * plan.rollout.gpus_per_actor if plan.sharing == "none" else 0
    pool = 0 if plan.pool is None else plan.pool.count * plan.pool.gpus_per_actor
    return plan.learner.count * plan.learner.gpus_per_actor + engines + pool


def running_cluster() -> Cluster:
    """What the cluster offers that RAY_ADDRESS names. Raises UserError where it cannot be joined."""
    import ray

    from dynalign.launch.interrupts import kept_signals
    from dynalign.launch.ray_cluster.connection import join, node_rows

    with kept_signals():
        join()
        try:
            return from_ray(node_rows())
        finally:
            ray.shutdown()
