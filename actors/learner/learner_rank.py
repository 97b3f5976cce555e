"""The Ray actor of one DeepSpeed rank.

It handles Arrow records and weight versions, not vLLM, prompts or the ledger.

    prepare   fetch, decode, pack: no collective, so a missing group ends the step on all ranks and hangs none
    run       forward, backward, optimizer step: collectives, which every rank must enter
    publish   full weights (collective); rank 0 passes them to the transport and keeps the newest two versions

Calls come one at a time, from the coordinator's `LearnerGroup`. Each is idempotent: repeated for the same
step, it returns the same result and trains nothing again.
"""

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from dynalign.actors import logs
from dynalign.actors.transports.base import Publisher
from dynalign.actors.transports.ipc import IpcPublisher
from dynalign.actors.transports.nccl import NcclPublisher
from dynalign.actors.transports.object_store import StorePublisher
from dynalign.actors.transports.shared_memory import SharedMemoryPublisher
from dynalign.configs.errors import CheckpointError, MissingGroups, RecordError
from dynalign.configs.schema import RunSettings
from dynalign.learner import experience
from dynalign.learner.learner_state import Report
from dynalign.rollout.ledger.values import ScoredGroup
from dynalign.rollout.weights.version import WeightVersion, version_label
from dynalign.run_folder import layout, owner, spool

if TYPE_CHECKING:
    from ray import ObjectRef

_OBJECT_WAIT_S = 20.0
"""Seconds to wait for the cached object of a group; then its file in the spool is read."""


@dataclass(frozen=True)
class LearnerSpec:
    """The constructor's argument of a rank.

    Example: ``LearnerSpec(run, "models/Qwen3-0.6B", "runs/first", 2, 0, 1, (0, 1), "shared_memory")``
    """

    run: RunSettings
    """The settings of the run."""
    model_folder: str
    """The Hugging Face folder of the initial policy."""
    run_folder: str
    """The run folder, from which the spool is read."""
    lineage: int
    """The lineage of the versions that this rank publishes."""
    rank: int
    """From 0."""
    world_size: int
    """The number of ranks."""
    cores: tuple[int, ...] | None
    """The CPU cores that the rank may use; None leaves them to the kernel."""
    transport: str = "object_store"
    """How versions travel, as the placement plan has chosen: the name of a module in `actors/transports/`."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end a completion, beside those that the model's files name (`Contexts.stop_ids`)."""


class LearnerRank:
    """The actor around `learner.learner.Learner`."""

    def __init__(self, spec: LearnerSpec) -> None:
        self._all_cores = os.sched_getaffinity(0)
        if spec.cores:
            os.sched_setaffinity(0, spec.cores)  # before any library counts the cores
        self._spec = spec
        self._run_folder = Path(spec.run_folder)
        self._versions: dict[int, WeightVersion | None] = {}

    def rendezvous(self) -> tuple[str, int]:
        """Return this node's IP address and a free port, at which all ranks can meet if this is rank 0."""
        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("", 0))
            return address, probe.getsockname()[1]

    def start(self, address: str, port: int) -> None:
        """Join the other ranks and load the initial policy.

        address, port: what rank 0's `rendezvous` returned.
        """
        spec = self._spec
        os.environ["MASTER_ADDR"] = address
        os.environ["MASTER_PORT"] = str(port)
        os.environ["RANK"] = str(spec.rank)
        os.environ["WORLD_SIZE"] = str(spec.world_size)
        os.environ["LOCAL_RANK"] = "0"  # Ray shows each rank its own GPU only
        if spec.run.placement.device == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"
        from dynalign.learner.learner import Learner  # reads the environment set above

        self._learner = Learner(
            spec.run,
            Path(spec.model_folder),
            spec.rank,
            spec.world_size,
            self._all_cores,
            spec.stop_ids,
        )
        self._publisher = _publisher(spec)
        logs.configure(
            spec.run, f"learner-{spec.rank}", lambda: version_label(spec.lineage, self._learner.step)
        )
        self._leave_the_device()

    def prepare(
        self,
        step: int,
        groups: Sequence[ScoredGroup],
        handles: "Sequence[ObjectRef[bytes] | None]",
        present_fraction: float,
    ) -> None:
        """Fetch, decode and pack the groups of `step`.

        handles: the cached object of each group; None if there is none.
        present_fraction: the share of the wanted groups that these are.

        Raises MissingGroups with the ids of all groups whose bytes are lost.
        """
        payloads = []
        missing = []
        for group, handle in zip(groups, handles, strict=True):
            payload = self._payload(group, handle)
            if payload is None:
                missing.append(group.group_id)
            else:
                payloads.append(payload)
        if missing:
            raise MissingGroups(tuple(missing))
        self._learner.prepare(step, payloads, [group.entry.name for group in groups], present_fraction)

    def run(self, step: int) -> tuple[Report, tuple[int, ...]]:
        """Train `step`; return its metrics and the ids of its groups.

        Rank 0 also writes the step's experience. Raises StaleLineage instead once another driver has taken
        the run over.
        """
        self._learner.wake()
        report = self._learner.run(step)
        if self._spec.rank == 0 and self._spec.run.experience.keep_steps != 0:
            fence = partial(owner.fenced, self._run_folder, self._spec.lineage)
            self._learner.write_experience(step, self._run_folder / layout.EXPERIENCE, fence)
            experience.prune(self._run_folder / layout.EXPERIENCE, self._spec.run.experience.keep_steps, step)
        return report, self._learner.trained_group_ids(step)

    def trained_step(self) -> int:
        """The step trained last; 0 is the initial policy."""
        return self._learner.step

    def publish(self, step: int) -> tuple[WeightVersion, float] | None:
        """Publish the version that `step` made; return it and the seconds that this took.

        A repeated call enters no collective.

        The result is None on all ranks but 0, and if `step` is neither the step trained last nor among the
        newest two versions.
        """
        started_s = time.monotonic()
        if step not in self._versions:
            if step != self._learner.step:
                return None
            self._versions[step] = self._publisher.publish(self._learner, self._spec.lineage)
            # Two are kept: a slow worker may still be fetching the version before.
            for old in sorted(self._versions)[:-2]:
                del self._versions[old]
        self._leave_the_device()
        version = self._versions[step]
        return None if version is None else (version, time.monotonic() - started_s)

    def fallback(self, step: int) -> WeightVersion | None:
        """Put version `step` into the object store, for an engine that cannot read it in this process's
        memory.

        Return None if a later version has replaced it.
        """
        version = self._versions.get(step)
        if version is not None and not version.handles:
            version = self._publisher.fallback(self._learner, version)
            if version is not None:
                self._versions[step] = version
        return version

    def save(self, aside: str, step: int) -> tuple[int, ...]:
        """Write this rank's part of a checkpoint, and the exported model, into the folder `aside`; return the
        step's group ids.

        Raises CheckpointError on all ranks if one of them could not write, or if the learner is at another
        step: such a checkpoint could never be continued.
        """
        if self._learner.step != step:
            raise CheckpointError(f"the learner is at step {self._learner.step}, not at step {step}")
        self._learner.save(Path(aside) / layout.DEEPSPEED)
        self._learner.export(Path(aside) / layout.EXPORTED_MODEL)
        return self._learner.trained_group_ids(step)

    def load(self, folder: str) -> int:
        """Continue from a complete checkpoint; return its step."""
        self._learner.wake()
        step = self._learner.load(Path(folder) / layout.DEEPSPEED)
        self._leave_the_device()
        return step

    def _leave_the_device(self) -> None:
        """In shared placement, leave the device to the engine until the next step."""
        if self._spec.run.placement.mode == "shared":
            self._learner.sleep()

    def _payload(self, group: ScoredGroup, handle: "ObjectRef[bytes] | None") -> bytes | None:
        """Return the group's Arrow bytes, from its cached object or else from its file; None if both are
        lost.
        """
        if handle is not None:
            lost = (
                ray.exceptions.GetTimeoutError,
                ray.exceptions.ObjectLostError,
                ray.exceptions.OwnerDiedError,
            )
            with contextlib.suppress(*lost):
                payload: bytes = ray.get(handle, timeout=_OBJECT_WAIT_S)
                return payload
        try:
            return spool.read(self._run_folder / layout.SPOOL, group.entry)
        except (RecordError, OSError):
            return None


def _publisher(spec: LearnerSpec) -> Publisher:
    """Return the publisher of the transport that the plan has chosen."""
    if spec.transport == "nccl":
        return NcclPublisher(spec.run.weights.deadline_s)
    if spec.transport == "object_store":
        return StorePublisher()
    this_actor = ray.get_runtime_context().current_actor
    return IpcPublisher(this_actor) if spec.transport == "ipc" else SharedMemoryPublisher(this_actor)
