"""The actors of a run on Ray, as the supervision has them created: at the start, and to replace one.

Ray ends non-detached actors with their creator: when the driver dies, all devices are free again, and the
run can be resumed. Ray restarts none by itself (`max_restarts = 0`), since that is the supervision's task.
Ledger and coordinator stay on the driver's node, so that the death of any other node takes only workers and
learner ranks. Workers are placed one by one, each with resources of its own, so that an autoscaler can add
nodes for them.
"""

from typing import Any, cast

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from dynalign.actors.askers import askers
from dynalign.actors.coordinator.coordinator import Coordinator
from dynalign.actors.coordinator.protocol import CoordinatorHandle
from dynalign.actors.gateway.gateway import CALLS as GATEWAY_CALLS
from dynalign.actors.gateway.gateway import Gateway, GatewaySpec, Opening
from dynalign.actors.gateway.protocol import GatewayHandle
from dynalign.actors.learner.learner_rank import LearnerRank, LearnerSpec
from dynalign.actors.learner.protocol import LearnerRankActor
from dynalign.actors.ledger.ledger_actor import CALLS, LedgerActor
from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.ledger.ledger_spec import LedgerSpec
from dynalign.actors.ledger.protocol import LedgerHandle
from dynalign.actors.pool.names import ray_name
from dynalign.actors.pool.pool_worker import PoolWorkerSpec
from dynalign.actors.pool.protocol import PoolWorkerHandle
from dynalign.actors.run_spec import RunSpec
from dynalign.actors.worker.protocol import RolloutWorkerHandle
from dynalign.actors.worker.rollout_worker import RolloutWorker, WorkerSpec
from dynalign.launch.preflight import Prepared
from dynalign.launch.ray_actors import actor, environment, named_actor, pool_engine
from dynalign.run_folder.content import model_hash


class RaySpawner:
    """A `Spawner`. What has to lie together (several ranks, or a rank and the engine it shares a GPU with)
    is reserved as one placement group; Ray places every other actor by itself.

    opening: opens the endpoints that the run asks; None where it asks none."""

    def __init__(self, ready: Prepared, opening: Opening | None = None) -> None:
        self._ready = ready
        self._opening = opening
        self._plan = ready.plan
        bundles = self._plan.bundles
        self._group = (
            ray.util.placement_group([{"CPU": b.cpus, "GPU": b.gpus} for b in bundles], strategy="PACK")
            if bundles
            else None
        )
        self._bundle_of = {name: index for index, bundle in enumerate(bundles) for name in bundle.actors}

    def ledger(self, spec: RunSpec) -> LedgerHandle:
        prompts = self._ready.prompts
        known = (len(prompts.train), prompts.content_hash)
        ledger = LedgerSpec(spec.run, spec.run_folder, spec.lineage, spec.step, *known)
        kind = self._here(LedgerActor, spec.ledger, max_concurrency=CALLS)
        return cast(LedgerHandle, kind.remote(ledger))

    def ranks(self, spec: RunSpec) -> tuple[LearnerRankActor, ...]:
        run = spec.run
        gpus = self._plan.learner.gpus_per_actor * self._plan.learner.gpu_share
        ranks = []
        for rank in range(run.learner.ranks):
            seat = f"learner-{rank}"
            rank_spec = LearnerSpec(
                run,
                str(self._ready.model_folder),
                spec.run_folder,
                spec.lineage,
                rank,
                run.learner.ranks,
                self._ready.cores.get(seat),
                self._plan.transport.name,
                self._ready.stop_ids,
            )
            ranks.append(
                actor(
                    LearnerRank,
                    run.learner.threads,
                    gpus,
                    environment(run.placement.device),
                    **self._placed(seat),
                ).remote(rank_spec)
            )
        return tuple(ranks)

    def coordinator(
        self, spec: RunSpec, ranks: tuple[LearnerRankActor, ...], joins: bool, pristine: bool
    ) -> CoordinatorHandle:
        ledger = LedgerLink(spec.ledger, spec.run.deadlines.start_s, spec.lineage)
        kind = self._here(Coordinator, spec.run.name)
        made = kind.remote(spec, self._ready.prompts, ledger, list(ranks), joins, pristine, self._ready.probe)
        return cast(CoordinatorHandle, made)

    def worker(self, spec: RunSpec, seat: str, name: str) -> RolloutWorkerHandle:
        run = spec.run
        gpus = self._plan.rollout.gpus_per_actor * self._plan.rollout.gpu_share
        worker_spec = WorkerSpec(
            name,
            run,
            str(self._ready.model_folder),
            spec.run_folder,
            spec.ledger,
            spec.lineage,
            self._ready.cores.get(seat),
            self._ready.texts,
            model_hash(self._ready.content),
        )
        variables = environment(run.placement.device)
        kind = actor(RolloutWorker, run.rollout.engine_threads, gpus, variables, **self._placed(seat))
        return cast(RolloutWorkerHandle, kind.remote(worker_spec, self._ready.prompts, askers(run)))

    @property
    def asks_endpoint(self) -> bool:
        return self._opening is not None

    def engine(self, spec: RunSpec, seat: str, name: str) -> PoolWorkerHandle:
        run = spec.run
        pool = run.judge.pool
        assert pool is not None
        assert self._ready.pool_folder is not None
        worker_spec = PoolWorkerSpec(
            name,
            run.name,
            run.log_level,
            pool,
            str(self._ready.pool_folder),
            self._plan.pool_context_tokens,
            run.date or "",
            run.seed,
            self._ready.cores.get(seat),
        )
        return pool_engine(worker_spec, ray_name(run.name, seat), run.placement.device)

    def gateway(self, spec: RunSpec) -> GatewayHandle:
        assert self._opening is not None
        gateway = GatewaySpec(spec.run.name, spec.run.log_level, spec.run_folder)
        kind = self._here(Gateway, spec.gateway, max_concurrency=GATEWAY_CALLS)
        return cast(GatewayHandle, kind.remote(gateway, self._opening))

    def _placed(self, seat: str) -> dict[str, Any]:
        if self._group is None or seat not in self._bundle_of:
            return {}
        strategy = PlacementGroupSchedulingStrategy(
            self._group, placement_group_bundle_index=self._bundle_of[seat]
        )
        return {"scheduling_strategy": strategy}

    def _here(self, kind: type, name: str, **options: Any) -> Any:
        """A named actor on this node."""
        node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return named_actor(kind, name, scheduling_strategy=node, **options)
