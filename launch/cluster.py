"""The actors of a run, as the driver creates them: at the start, and again when the supervision replaces one.

Ray ends non-detached actors with their creator: when the driver dies, all devices are free again, and a re-submission resumes.
`max_restarts = 0`: nothing restarts behind the supervision's back. Ledger and coordinator stay on the driver's node, so that the
death of any other node takes only workers and learner ranks. Workers are placed one by one, each with resources of its own, so that
a cluster's autoscaler can add nodes for them.
"""

import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.coordinator import Coordinator
from actors.learner_rank import LearnerPlace, LearnerRank
from actors.ledger import LedgerActor, LedgerPlace
from actors.rollout_worker import RolloutWorker, WorkerPlace
from actors.run_place import NAMESPACE, RunPlace
from configs.errors import DeadlineExceeded
from launch.preflight import Prepared

_NAME_S = 60.0
"""Longest wait, in seconds, until Ray has let go of the name of an actor that was ended."""


@dataclass(frozen=True)
class Cluster:
    """Creates actors; starts none."""

    ready: Prepared

    def ledger(self, place: RunPlace) -> Any:
        told = LedgerPlace(place.run, place.run_folder, place.lineage, place.step, len(self.ready.prompts.train))
        return self._here(LedgerActor, place.ledger).remote(told)

    def ranks(self, place: RunPlace) -> tuple[Any, ...]:
        """All learner ranks, rank 0 first."""
        run, model = place.run, str(self.ready.model_folder)
        share = self.ready.plan.learner.gpu_share if run.placement.device == "gpu" else 0.0
        return tuple(
            _actor(LearnerRank, run.learner.threads, share).remote(
                LearnerPlace(run, model, place.run_folder, place.lineage, rank, run.learner.ranks, self.ready.cores.get(f"learner-{rank}"))
            )
            for rank in range(run.learner.ranks)
        )

    def coordinator(self, place: RunPlace, ranks: tuple[Any, ...], joins: bool, pristine: bool) -> Any:
        return self._here(Coordinator, place.run.name).remote(place, self.ready.prompts, list(ranks), joins, pristine)

    def worker(self, place: RunPlace, seat: str, name: str) -> Any:
        """seat: whose cores it takes. name: its own, which no worker before it had."""
        run = place.run
        share = self.ready.plan.rollout.gpu_share if run.placement.device == "gpu" else 0.0
        told = WorkerPlace(
            name, run, str(self.ready.model_folder), place.run_folder, place.ledger, place.lineage, self.ready.cores.get(seat)
        )
        return _actor(RolloutWorker, run.rollout.engine_threads, share).remote(told, self.ready.prompts)

    def _here(self, kind: type, name: str) -> Any:
        """A named actor on this node, once its name is free."""
        until_s = time.monotonic() + _NAME_S
        while True:
            try:
                ray.get_actor(name, namespace=NAMESPACE)
            except ValueError:  # nobody has it
                node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
                return _actor(kind, name=name, namespace=NAMESPACE, scheduling_strategy=node)
            if time.monotonic() > until_s:
                raise DeadlineExceeded(f"Ray to end the actor that was {name}", _NAME_S)
            time.sleep(0.1)


def _actor(kind: type, threads: int = 0, gpus: float = 0.0, **options: Any) -> Any:
    environment = {"OMP_NUM_THREADS": str(max(1, threads)), "TOKENIZERS_PARALLELISM": "false", "VLLM_LOGGING_LEVEL": "WARNING"}
    return ray.remote(kind).options(
        num_cpus=threads, num_gpus=gpus, max_restarts=0, max_task_retries=0, runtime_env={"env_vars": environment}, **options
    )
