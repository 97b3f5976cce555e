"""The control plane alone: groups per second, latency of a lease, efficiency of 8 workers.

    for 1, 10, 100, 1,000 simulated workers, in one run, one after the other:
      saturated   closed loop, many more groups offered than can pass     groups/s, CPU time, bytes
      paced       closed loop, 600 groups/s, a learner that takes 450     how long the learner starves
      open        leases due at 500/s by the clock                        latency of a lease
    then fixed work by 1 worker and by 8                                  efficiency

Groups are 100 kB of recorded bytes; spool and objects lie in shared memory, the ledger's log on the disk.
"""

import asyncio
import math
from pathlib import Path
from typing import Any

from dynalign.actors.ledger.ledger_status import LedgerStatus
from dynalign.benchmarks.catalog import CONTROL_WORKERS
from dynalign.benchmarks.control.cluster import PROMPTS_PER_STEP, ControlPlane, control_plane
from dynalign.benchmarks.workload import Workload
from dynalign.run_folder import layout

OFFERED_PER_S = 3000.0
"""Groups per second that the saturated workers' engines would make, were there nothing else."""
DUE_PER_S = 500.0
"""Half of the aim."""
ENGINES_PER_S = 600.0
LEARNER_PER_S = 450.0
_PACED_IN_FLIGHT = 600
"""A group then takes 1 s. If it took longer than a step, the learner would wait for engines, not for the
ledger."""
_SLOTS = 16
"""Groups in flight in a worker, as in an engine with 128 sequences."""
_IN_FLIGHT = 1600
"""Groups in flight in all workers: fewer than two steps admit."""
_SETTLE_S = 3.0
_WINDOW_S = 2.0
_STEPS = 4  # of the paced learner
_OPEN_S = 10.0
_OPEN_ENGINE_S = 0.1
_OPEN_RUNS = 3
_FIXED_GROUPS = 1600
_FIXED_SLOTS = 8
_FIXED_ENGINE_S = 0.2


def measure(workload: Workload) -> dict[str, list[float]]:
    run_folder = workload.scratch / "control"
    run_folder.mkdir()
    spooled = workload.memory / "control-spool"
    spooled.mkdir()
    (run_folder / layout.SPOOL).symlink_to(spooled)
    with control_plane(run_folder) as plane:
        return asyncio.run(
            _measure(plane, workload.runs, CONTROL_WORKERS[:2] if workload.quick else CONTROL_WORKERS)
        )


async def _measure(plane: ControlPlane, runs: int, sizes: tuple[int, ...]) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {}
    for workers in sizes:
        samples |= {
            f"control_{name}_{workers}": values
            for name, values in (await _size(plane, runs, workers)).items()
        }
    samples["control_per_worker_of_1"], samples["control_per_worker_of_8"] = await _efficiency(plane, runs)
    await plane.stop()
    return samples


async def _size(plane: ControlPlane, runs: int, workers: int) -> dict[str, list[float]]:
    shares = await plane.enlist(workers)
    slots = max(1, min(_SLOTS, _IN_FLIGHT // workers))
    samples = await _saturated(plane, shares, slots, runs)
    samples |= await _paced(plane, shares, slots)
    return samples | await _open(plane, shares, min(_OPEN_RUNS, runs))


async def _start(plane: ControlPlane, shares: list[Any], slots: int, engine_s: float) -> list[Any]:
    """Start the workers, each with `slots` leases in flight, and let them settle."""
    calls = [
        host.closed.remote(names, slots, engine_s, 0)
        for host, names in zip(plane.hosts, shares, strict=False)
    ]
    await plane.watching(asyncio.sleep(_SETTLE_S))
    return calls


async def _stop(plane: ControlPlane, calls: list[Any]) -> None:
    for host in plane.hosts:
        await host.stop.remote()
    await plane.watching(asyncio.gather(*calls))


async def _saturated(plane: ControlPlane, shares: list[Any], slots: int, runs: int) -> dict[str, list[float]]:
    workers = sum(map(len, shares))
    calls = await _start(plane, shares, slots, workers * slots / OFFERED_PER_S)
    rates = []
    groups = 0
    cpu_s = plane.cpu_s()
    file_bytes = plane.file_bytes()
    wire_bytes = _loopback_bytes()
    before = _made(await plane.status())
    for _ in range(runs):
        began_s = asyncio.get_running_loop().time()
        await plane.watching(asyncio.sleep(_WINDOW_S))
        now = _made(await plane.status())
        rates.append((now - before) / (asyncio.get_running_loop().time() - began_s))
        groups = groups + now - before
        before = now
    spent_s = {name: after - cpu_s[name] for name, after in plane.cpu_s().items()}
    samples = {"groups_per_s": rates, "wire_bytes": [(_loopback_bytes() - wire_bytes) / groups]}
    samples["file_bytes"] = [(plane.file_bytes() - file_bytes) / groups]
    await _stop(plane, calls)
    return samples | {f"{name}_cpu_ms": [1000 * spent / groups] for name, spent in spent_s.items()}


async def _paced(plane: ControlPlane, shares: list[Any], slots: int) -> dict[str, list[float]]:
    """Engines that make a third more than the learner takes: it need not wait."""
    step_s = PROMPTS_PER_STEP / LEARNER_PER_S
    workers = sum(map(len, shares))
    slots = max(1, min(slots, _PACED_IN_FLIGHT // workers))
    await plane.rank.pace.remote(step_s)
    calls = await _start(plane, shares, slots, workers * slots / ENGINES_PER_S)
    await plane.watching(plane.steps(_STEPS))
    starved = plane.starved_fractions(_STEPS - 1)
    await plane.rank.pace.remote(0.0)
    await _stop(plane, calls)
    return {"starved_fraction": starved}


async def _open(plane: ControlPlane, shares: list[Any], runs: int) -> dict[str, list[float]]:
    workers = sum(map(len, shares))
    samples: dict[str, list[float]] = {"lease_p50_s": [], "lease_p99_s": []}
    for _ in range(runs):
        calls = [
            host.open.remote(names, DUE_PER_S * len(names) / workers, _SETTLE_S, _OPEN_S, _OPEN_ENGINE_S)
            for host, names in zip(plane.hosts, shares, strict=False)
        ]
        late_s = sorted(late for host in await plane.watching(asyncio.gather(*calls)) for late in host)
        samples["lease_p50_s"].append(_quantile(late_s, 0.5))
        samples["lease_p99_s"].append(_quantile(late_s, 0.99))
    return samples


async def _efficiency(plane: ControlPlane, runs: int) -> tuple[list[float], list[float]]:
    """Groups per second and worker: of one worker, and of eight that do the same work."""
    alone: list[float] = []
    together: list[float] = []
    for _ in range(max(1, runs // 2)):
        for workers, rates in ((1, alone), (8, together)):
            shares = await plane.enlist(workers)
            calls = [
                host.closed.remote(
                    names, _FIXED_SLOTS, _FIXED_ENGINE_S, _FIXED_GROUPS * len(names) // workers
                )
                for host, names in zip(plane.hosts, shares, strict=False)
            ]
            took_s = max(await plane.watching(asyncio.gather(*calls)))
            rates.append(_FIXED_GROUPS / workers / took_s)
    return alone, together


def _made(status: LedgerStatus) -> int:
    return status.scored + status.trained


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def _loopback_bytes() -> int:
    """Bytes that this machine's processes have sent one another so far."""
    line = next(
        line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:")
    )
    return int(line.split(":")[1].split()[8])
