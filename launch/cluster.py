"""Ray from the driver's side: a cluster to run on, and the actors of a run on it.

Every actor is created here, by the driver (Ray ends non-detached actors with their creator): when the driver dies, all devices
are free again, and a re-submission resumes. `max_restarts = 0`: nothing restarts behind the supervision's back.
"""

import os
from dataclasses import dataclass
from typing import Any

import ray

from actors.coordinator import Coordinator
from actors.learner_rank import LearnerPlace, LearnerRank
from actors.ledger import LedgerActor, LedgerPlace
from actors.rollout_worker import RolloutWorker, WorkerPlace
from actors.run_place import RunPlace
from configs.schema import RunSettings
from launch.preflight import Prepared

NAMESPACE = "dynalign"


@dataclass(frozen=True)
class RunActors:
    """The handles of one run; rank 0 first."""

    ledger: Any
    ranks: tuple[Any, ...]
    coordinator: Any
    workers: dict[str, Any]


def connect(run: RunSettings) -> bool:
    """Joins the cluster that RAY_ADDRESS names (a Ray job sets it), else starts one in this machine. True if it was started."""
    quiet = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", **quiet)
        return False
    needed = run.rollout.workers.max * run.rollout.engine_threads + run.learner.ranks * run.learner.threads
    ray.init(
        num_cpus=max(needed, os.cpu_count() or 1),
        object_store_memory=int(run.placement.object_store_gib * 2**30),
        include_dashboard=False,
        **quiet,
    )
    return True


def create_actors(place: RunPlace, ready: Prepared) -> RunActors:
    """All actors of the run, none of them started yet."""
    run, folder, lineage = place.run, place.run_folder, place.lineage
    ledger = _actor(LedgerActor, f"{run.name}-ledger").remote(LedgerPlace(run, folder, lineage, place.step, len(ready.prompts.train)))
    share = ready.plan.learner.gpu_share if run.placement.device == "gpu" else 0.0
    ranks = tuple(
        _actor(LearnerRank, f"{run.name}-learner-{rank}", run.learner.threads, share).remote(
            LearnerPlace(run, str(ready.model_folder), folder, lineage, rank, run.learner.ranks, ready.cores.get(f"learner-{rank}"))
        )
        for rank in range(run.learner.ranks)
    )
    coordinator = _actor(Coordinator, run.name).remote(place, ready.prompts, ledger, list(ranks))
    names = [f"rollout-{index}" for index in range(run.rollout.workers.min)]
    return RunActors(ledger, ranks, coordinator, {name: create_worker(place, ready, ledger, name) for name in names})


def create_worker(place: RunPlace, ready: Prepared, ledger: Any, name: str) -> Any:
    """One rollout worker, not started yet."""
    run, model = place.run, str(ready.model_folder)
    share = ready.plan.rollout.gpu_share if run.placement.device == "gpu" else 0.0
    told = WorkerPlace(name, run, model, place.run_folder, place.lineage, ready.cores.get(name))
    return _actor(RolloutWorker, f"{run.name}-{name}", run.rollout.engine_threads, share).remote(told, ready.prompts, ledger)


def _actor(kind: type, name: str, threads: int = 0, gpus: float = 0.0) -> Any:
    environment = {"OMP_NUM_THREADS": str(max(1, threads)), "TOKENIZERS_PARALLELISM": "false", "VLLM_LOGGING_LEVEL": "WARNING"}
    return ray.remote(kind).options(
        name=name, num_cpus=threads, num_gpus=gpus, max_restarts=0, max_task_retries=0, runtime_env={"env_vars": environment}
    )


def end(actors: RunActors | None, started_here: bool) -> None:
    """Ends the run's actors with their children, and the cluster if it was started here."""
    if actors is not None:
        for actor in (actors.coordinator, *actors.workers.values(), *actors.ranks, actors.ledger):
            ray.kill(actor, no_restart=True)
    if started_here or actors is not None:
        ray.shutdown()
