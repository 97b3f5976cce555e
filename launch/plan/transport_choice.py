"""How a new weight version reaches the engines: what works on a placement, and what `auto` chooses."""

from dataclasses import dataclass
from typing import Literal

from dynalign.configs.errors import Mistake
from dynalign.configs.schema import RunSettings
from dynalign.launch.plan.placement import Sharing

Name = Literal["object_store", "shared_memory", "ipc", "nccl"]


@dataclass(frozen=True)
class Transport:
    """The transport of a run: `Transport("ipc", "learner and engine are on the same GPU")`."""

    name: Name
    """A value of `weights.transport`, other than `auto`."""
    reason: str
    """Why it was chosen, for the printed plan."""


def choose_transport(settings: RunSettings, shared: Sharing, one_host: bool) -> Transport:
    """The transport that `weights.transport` names; for `auto` the fastest one that works.

    That is shared memory on one host without GPUs, CUDA IPC on a common GPU, NCCL between GPUs, else the
    object store.
    """
    wanted = settings.weights.transport
    if wanted != "auto":
        return Transport(wanted, f"weights.transport={wanted}")
    if settings.placement.device == "cpu" and one_host:
        reason = "engines map what the learner writes; one that joins from afar takes the object store"
        return Transport("shared_memory", reason)
    if obstacle(settings, shared, "ipc") is None:
        reason = (
            "learner and engine are on the same GPU; an engine that cannot read there takes the object store"
        )
        return Transport("ipc", reason)
    if obstacle(settings, shared, "nccl") is None:
        reason = (
            "learner and engines have GPUs of their own; who is late for a broadcast takes the object store"
        )
        return Transport("nccl", reason)
    return Transport("object_store", obstacle(settings, shared, "nccl") or "")


def obstacle(settings: RunSettings, shared: Sharing, name: Name) -> str | None:
    """Why a transport cannot work; None where it can."""
    if name in ("object_store", "shared_memory"):
        return None
    if settings.rollout.engine == "deterministic":
        return "rollout.engine=deterministic has its weights in host memory"
    if settings.placement.device == "cpu":
        return "placement.device=cpu has no GPU memory to send from"
    if settings.weights.content == "adapter":
        return "weights.content=adapter travels as a file, which an engine loads beside its own weights"
    if name == "nccl" and shared != "none":
        return "NCCL takes one process per GPU, and learner and engine are on the same one"
    if name == "ipc" and shared == "none":
        return "learner and engines have GPUs of their own"
    if name == "ipc" and settings.learner.ranks > 1:
        return f"rank 0 sends, and only one of {settings.learner.ranks} engines is on its GPU"
    return None


def transport_mistakes(settings: RunSettings, shared: Sharing) -> list[Mistake]:
    """The mistake of a setting that names a transport which cannot work."""
    name = settings.weights.transport
    why = None if name == "auto" else obstacle(settings, shared, name)
    if why is None:
        return []
    return [Mistake("weights.transport", name, why, "set weights.transport=auto, or object_store")]
