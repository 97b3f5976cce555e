"""Resident memory of a run by actor, measured from outside. Processes are told apart by their titles."""

from contextlib import suppress

import psutil

_TITLES = {
    "VLLM::EngineCore": "engine_core",
    "ray::RolloutWorker": "rollout_worker",
    "ray::LearnerRank": "learner",
    "ray::Coordinator": "coordinator",
    "ray::LedgerActor": "ledger",
    "raylet": "raylet",
    "gcs_server": "gcs",
}
MIB = 2**20


def role(title: str) -> str:
    """Which actor a process below the driver is, by its title; `ray_others` for Ray's agents, monitors and
    idle workers.
    """
    return next((name for beginning, name in _TITLES.items() if title.startswith(beginning)), "ray_others")


def role_of(process: psutil.Process) -> str:
    """The role of a process. Raises psutil.Error for one that has ended."""
    title = (process.cmdline() or [""])[0]
    return role(title.rpartition("/")[2] if title.startswith("/") else title)


class PeakMemory:
    """Peak memory of the driver and of all processes below it, added up by role.

    A shared page counts in every process that has touched it.
    """

    def __init__(self, driver: int) -> None:
        self._driver = psutil.Process(driver)
        self.peaks_mib: dict[str, float] = {}

    def sample(self) -> None:
        now_bytes: dict[str, int] = {}
        try:
            processes = self._driver.children(recursive=True)
            now_bytes["driver"] = self._driver.memory_info().rss
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                name = role_of(process)
                resident_bytes = process.memory_info().rss
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            now_bytes[name] = now_bytes.get(name, 0) + resident_bytes
        for name, resident_bytes in now_bytes.items():
            self.peaks_mib[name] = max(self.peaks_mib.get(name, 0.0), resident_bytes / MIB)

    def processes(self, name: str) -> list[psutil.Process]:
        """The processes of a role that run now; none once the driver has ended."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for process in self._driver.children(recursive=True):
                with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    if role_of(process) == name:
                        found.append(process)
        return found
