"""One DeepSpeed rank of the learner. It knows Arrow and versions; it does not know vLLM, prompts or the
ledger.

    prepare   fetch, decode, pack: no collective, so a missing group ends the step on all ranks instead of
    hanging one run       forward, backward, optimizer step: collectives; every rank must enter publish
    full weights (collective at ZeRO 3); rank 0 puts them into the transport and keeps the newest two
    versions alive

Calls come one at a time, from the coordinator's `LearnerGroup`; each answers the same when asked twice for
the same step.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from dynalign.actors import logs
from dynalign.actors.transports.ipc import IpcPublisher
from dynalign.actors.transports.nccl import NcclPublisher
from dynalign.actors.transports.object_store import StorePublisher
from dynalign.actors.transports.shared_memory import SharedMemoryPublisher
from dynalign.configs.errors import MissingGroups, RecordError
from dynalign.configs.schema import RunSettings
from dynalign.learner import experience
from dynalign.rollout.ledger.values import ScoredGroup
from dynalign.rollout.weights.version import WeightVersion, version_label
from dynalign.run_folder import layout, spool

logger = logging.getLogger(__name__)

_OBJECT_WAIT_S = 20.0  # for a group's cached object; its spool file is read when it does not come


@dataclass(frozen=True)
class LearnerSpec:
    """What a rank is told once. `cores`: the CPU cores it may use; None leaves that to the machine.
    `transport`: the plan's choice."""

    run: RunSettings
    model_folder: str
    run_folder: str
    lineage: int
    rank: int
    world_size: int
    cores: tuple[int, ...] | None
    transport: str = "object_store"


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
        """Address and a free port of rank 0, for all ranks to meet."""
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def start(self, address: str, port: int) -> None:
        """Joins the other ranks and loads the initial policy."""
        spec = self._spec
        os.environ.update(
            MASTER_ADDR=address, MASTER_PORT=str(port), RANK=str(spec.rank), WORLD_SIZE=str(spec.world_size)
        )
        os.environ.update(LOCAL_RANK="0")
        if spec.run.placement.device == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"
        from dynalign.learner.learner import Learner  # reads the environment set above

        self._learner = Learner(
            spec.run, Path(spec.model_folder), spec.rank, spec.world_size, self._all_cores
        )
        self._publisher = _publisher(spec)
        logs.configure(
            spec.run, f"learner-{spec.rank}", lambda: version_label(spec.lineage, self._learner.step)
        )
        self._leave_the_device()

    def prepare(
        self, step: int, groups: Sequence[ScoredGroup], handles: Sequence[Any], present_fraction: float
    ) -> None:
        """Raises MissingGroups with all ids whose bytes are gone."""
        payloads, missing = [], []
        for group, handle in zip(groups, handles, strict=True):
            payload = self._payload(group, handle)
            if payload is None:
                missing.append(group.group_id)
            else:
                payloads.append(payload)
        if missing:
            raise MissingGroups(tuple(missing))
        self._learner.prepare(step, payloads, [group.name for group in groups], present_fraction)

    def run(self, step: int) -> tuple[dict[str, float | int | None], tuple[int, ...]]:
        """The GRPO step's report, and the groups that it trained; rank 0 also writes the step's
        experience."""
        self._learner.wake()
        report = self._learner.run(step)
        if self._spec.rank == 0 and self._spec.run.experience.keep_steps != 0:
            self._learner.write_experience(step, self._run_folder / layout.EXPERIENCE)
            experience.prune(self._run_folder / layout.EXPERIENCE, self._spec.run.experience.keep_steps, step)
        return report, self._learner.trained_group_ids(step)

    def publish(self, step: int) -> tuple[WeightVersion, float] | None:
        """The version that `step` made and the seconds it took (rank 0; None elsewhere, and for a version
        that the learner neither is at nor keeps). Asked again, no rank enters a collective."""
        started_s = time.monotonic()
        if step not in self._versions:
            if step != self._learner.step:
                return None
            self._versions[step] = self._publisher.publish(self._learner, self._spec.lineage)
            for old in sorted(self._versions)[:-2]:  # a slow worker may still be fetching the version before
                del self._versions[old]
        self._leave_the_device()
        version = self._versions[step]
        return None if version is None else (version, time.monotonic() - started_s)

    def fallback(self, step: int) -> WeightVersion | None:
        """Version `step` in the object store, for an engine that cannot read it in this process's memory;
        None once it has a successor there."""
        version = self._versions.get(step)
        if (
            version is not None
            and not version.handles
            and isinstance(self._publisher, IpcPublisher | SharedMemoryPublisher)
        ):
            version = self._publisher.fallback(self._learner, version)
            if version is not None:
                self._versions[step] = version
        return version

    def save(self, aside: str, step: int) -> tuple[int, ...]:
        """This rank's part of a checkpoint, into the folder aside, and the exported model; returns the
        step's group ids. Raises CheckpointError, on all ranks, when one of them could not write."""
        self._learner.save(Path(aside) / layout.DEEPSPEED)
        self._learner.export(Path(aside) / layout.EXPORTED_MODEL)
        return self._learner.trained_group_ids(step)

    def load(self, folder: str) -> int:
        """Continues from a whole checkpoint; returns its step."""
        self._learner.wake()
        step = self._learner.load(Path(folder) / layout.DEEPSPEED)
        self._leave_the_device()
        return step

    def _leave_the_device(self) -> None:
        """Shared placement: the engine has it until the next step."""
        if self._spec.run.placement.mode == "shared":
            self._learner.sleep()

    def _payload(self, group: ScoredGroup, handle: Any) -> bytes | None:
        if handle is not None:
            try:
                return ray.get(handle, timeout=_OBJECT_WAIT_S)
            except (
                ray.exceptions.GetTimeoutError,
                ray.exceptions.ObjectLostError,
                ray.exceptions.OwnerDiedError,
            ):
                pass  # the object is a cache of the spool's file
        try:
            return spool.read(
                self._run_folder / layout.SPOOL,
                spool.SpoolEntry(group.name, group.size_bytes, group.checksum),
            )
        except (RecordError, OSError):
            return None


def _publisher(spec: LearnerSpec) -> IpcPublisher | NcclPublisher | SharedMemoryPublisher | StorePublisher:
    if spec.transport == "nccl":
        return NcclPublisher(spec.run.weights.deadline_s)
    if spec.transport == "object_store":
        return StorePublisher()
    kind = IpcPublisher if spec.transport == "ipc" else SharedMemoryPublisher
    return kind(ray.get_runtime_context().current_actor)
