"""Peak memory of each actor of a run, and what the placement plan's formulas say of it.

On a GPU it is the GPU's memory, per process as the driver counts it; in a dry run the resident memory of
the host. In a container the driver may name processes by numbers of another namespace: then the whole GPU's
memory is left, as `all`.
"""

import subprocess
from collections.abc import Callable, Mapping, Sequence

import psutil

from dynalign.benchmarks.gpu_check.outcomes import Measured
from dynalign.benchmarks.memory import MIB, PeakMemory, role_of
from dynalign.benchmarks.workload import Device
from dynalign.launch.plan.memory import CUDA_CONTEXT_BYTES, GB, Part, Where
from dynalign.launch.plan.plan import PlacementPlan

_ANSWER_DEADLINE_S = 30.0
ACTORS: dict[str, tuple[str, ...]] = {"rollout": ("rollout_worker", "engine_core"), "learner": ("learner",)}
"""Actor of the plan → roles of its processes (`benchmarks/memory.py`)."""
ALL = "all"

Ask = Callable[[str], list[str]]
"""A query of nvidia-smi → the lines of its answer."""


def nvidia_smi(query: str) -> list[str]:
    """The lines of an answer, without units; none where the driver does not answer."""
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_ANSWER_DEADLINE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


class ActorMemory(PeakMemory):
    """Peaks by role, of a run on either device."""

    def __init__(self, driver: int, device: Device, ask: Ask = nvidia_smi) -> None:
        """driver: of a run that has nothing on a GPU yet. What is used there is somebody else's: this check's
        own process, or another one on another GPU."""
        super().__init__(driver)
        self._device = device
        self._ask = ask
        self._before_mib = self._used_mib() if device == "gpu" else 0.0

    def _used_mib(self) -> float:
        """Of all GPUs, by all processes."""
        return sum(numbers(self._ask("--query-gpu=memory.used")))

    def sample(self) -> None:
        """Looks once; a role's peak is the largest sum of its processes."""
        if self._device == "cpu":
            super().sample()
            return
        now_mib: dict[str, float] = {ALL: self._used_mib() - self._before_mib}
        for line in self._ask("--query-compute-apps=pid,used_memory"):
            process, _, used = line.partition(",")
            named = _role_of(process)
            if named is not None:
                now_mib[named] = now_mib.get(named, 0.0) + sum(numbers([used]))
        for name, used_mib in now_mib.items():
            self.peaks_mib[name] = max(self.peaks_mib.get(name, 0.0), used_mib)


def numbers(cells: Sequence[str]) -> list[float]:
    """The cells that are numbers: the driver writes `[N/A]` for what it does not know."""
    return [float(cell) for cell in cells if cell.strip().replace(".", "", 1).isdigit()]


def _role_of(process: str) -> str | None:
    """The role of a process of that number; None where there is none, or it is no actor's."""
    try:
        named = role_of(psutil.Process(int(process)))
    except (ValueError, psutil.Error):
        return None
    return None if named == "ray_others" else named


def beside_the_plan(peaks_mib: Mapping[str, float], plan: PlacementPlan) -> dict[str, Measured]:
    """For each actor: measured and planned gigabytes, the relative error measured / planned - 1, and what the
    plan is made of. An actor that could not be told from others has no measured figure."""
    where: Where = "gpu" if plan.settings.placement.device == "gpu" else "host"
    in_turn = plan.sharing == "in turn"
    figures: dict[str, Measured] = {}
    planned_gb: dict[str, float] = {}
    for actor in (plan.rollout, plan.learner):
        parts = [part for part in actor.memory if part.where == where]
        planned_gb[actor.name] = own_bytes(actor.name, parts, in_turn) / GB
        roles = [name for name in ACTORS[actor.name] if name in peaks_mib]
        measured_gb = sum(peaks_mib[name] for name in roles) * MIB / GB if roles else None
        figures |= _compared(actor.name, measured_gb, planned_gb[actor.name])
        figures[f"{actor.name}_planned_as"] = ", ".join(
            f"{part.name} {part.size_bytes / GB:.2f}" for part in parts
        )
    if ALL in peaks_mib:
        together_gb = max(planned_gb.values()) if in_turn else sum(planned_gb.values())
        asleep_gb = CUDA_CONTEXT_BYTES / GB if in_turn else 0.0
        figures |= _compared("gpu", peaks_mib[ALL] * MIB / GB, together_gb + asleep_gb)
    return figures


def _compared(name: str, measured_gb: float | None, planned_gb: float) -> dict[str, Measured]:
    if measured_gb is None:
        return {f"{name}_planned_gb": round(planned_gb, 3)}
    return {
        f"{name}_measured_gb": round(measured_gb, 3),
        f"{name}_planned_gb": round(planned_gb, 3),
        f"{name}_plan_error": round(measured_gb / planned_gb - 1, 4),
    }


def own_bytes(actor: str, parts: Sequence[Part], in_turn: bool) -> int:
    """What the plan expects of the actor's own processes.

    Of actors in turn, the plan counts with each what the other one leaves on the GPU: its CUDA context, and
    with the engine the version that the learner has staged."""
    total = sum(part.size_bytes for part in parts)
    if not in_turn:
        return total
    foreign = sum(CUDA_CONTEXT_BYTES for part in parts if part.name == "CUDA")
    if actor == "rollout":
        foreign += sum(part.size_bytes for part in parts if part.name == "version staged")
    return total - foreign
