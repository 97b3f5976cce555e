"""`python -m dynalign.benchmarks.chaos.storm --kills 50 --seed 7`: kills the actors, node and driver of a
long run, then audits it.

    a Ray cluster of two nodes on this machine ─► `dynalign train`
    ─► repeatedly: kill something, wait for recovery
    ─► `dynalign stop` ─► the run is trained to its end ─► audit of the run folder ─► table

Ray, the actors and the learner (of a tiny model) are real; the engine is the deterministic one. A kill is
SIGKILL, a hang SIGSTOP.

Exit codes: 0 every issued group was trained once or withheld; 1 one was lost or trained twice, or the run did
not recover; 2 wrong arguments.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import psutil

from dynalign.benchmarks.chaos.audit import Audit, audit
from dynalign.configs.errors import DeadlineExceeded, RunFailed
from dynalign.run_folder import layout
from dynalign.run_folder.events import read_events

WEIGHTS = {
    "worker": 5,
    "worker hangs": 2,
    "ledger": 4,
    "coordinator": 4,
    "learner": 3,
    "node": 2,
    "driver": 2,
}
"""What is killed, and its relative frequency."""

SAID_OF = {kind: kind for kind in WEIGHTS} | {"worker hangs": "worker", "node": "worker"}
"""What is killed → the actor that the run's events name; the second node runs a worker."""

MARK = "DYNALIGN_CHAOS"
"""Environment variable of every process of this storm, so that no other process is killed."""

RECOVERY_S = 240.0
"""Seconds from a kill until everything must serve again."""

WORKERS = 3
MAX_STALENESS = 2
_RAY = str(Path(sys.executable).with_name("ray"))


@click.command()
@click.option("--kills", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
@click.option(
    "--model", type=click.Path(exists=True, path_type=Path), required=True, help="A folder with a tokenizer."
)
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the run folder here.")
def chaos(kills: int, seed: int, model: Path, keep: Path | None) -> int:
    """Kill everything, and show that nothing is lost."""
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as scratch:
        storm = Storm(Path(scratch), tiny(model, Path(scratch) / "model"))
        try:
            with storm.cluster():
                lost_s = storm.blow(kills, random.Random(seed))
                storm.finish()
            found = audit(storm.folder, MAX_STALENESS)
        finally:
            if keep is not None and storm.folder.exists():
                shutil.copytree(storm.folder, keep, dirs_exist_ok=True)
    click.echo("\n".join(table(lost_s, found)))
    return 1 if found.mistakes else 0


def tiny(model: Path, folder: Path) -> Path:
    """A random model with the tokenizer and the architecture of `model`: two layers of 64 units."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(model)
    config.update(
        {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    )
    config.update({"num_key_value_heads": 1, "head_dim": 32})
    random_model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    random_model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


class Storm:
    """One run under attack. folder: its run folder."""

    def __init__(self, scratch: Path, model: Path) -> None:
        self.scratch = scratch
        self.folder = scratch / "runs" / "chaos"
        self._model = model
        self._log = (scratch / "train.log").open("a")
        self._mark = f"{os.getpid()}-{time.time_ns()}"
        own = {
            MARK: self._mark,
            "RAY_AUTH_MODE": "disabled",
            "HOME": str(scratch),
            "RAY_raylet_start_wait_time_s": "60",
        }
        self._environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | own
        self._driver: subprocess.Popen[bytes] | None = None
        self._second: subprocess.Popen[bytes] | None = None
        self._steps = 1_000_000

    @contextmanager
    def cluster(self) -> Iterator[None]:
        """A head with room for learner and two workers, and a second node for the third; gone afterwards,
        whatever happened.
        """
        with ExitStack() as started:
            started.callback(self._clear)
            self._node(
                "--head",
                "--port=0",
                "--include-dashboard=false",
                f"--temp-dir={self.scratch / 'ray'}",
                "--num-cpus=3",
            )
            self._environment["RAY_ADDRESS"] = (
                (self.scratch / "ray" / "ray_current_cluster").read_text().strip()
            )
            self._add_second_node()
            yield

    def blow(self, kills: int, rng: random.Random) -> dict[str, list[float]]:
        """Kills `kills` times; the seconds from each kill until all serves again, by what was killed."""
        self._submit()
        self._until("the run to start", self._serves)
        lost_s: dict[str, list[float]] = {kind: [] for kind in WEIGHTS}
        for number in range(1, kills + 1):
            time.sleep(rng.uniform(0.0, 3.0))
            kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            recoveries = self._recoveries(kind)
            step = self._status()["step"]
            began_s = time.monotonic()
            self._kill(kind, rng)
            self._until(
                f"recovery from kill {number}, {kind}", partial(self._recovered, kind, recoveries, step)
            )
            lost_s[kind].append(time.monotonic() - began_s)
            took = f"all serves again after {lost_s[kind][-1]:5.1f} s, step {self._status()['step']}"
            click.echo(f"kill {number:3} {kind:13} {took}")
        return lost_s

    def finish(self) -> None:
        """Stops the run, and trains it to its end."""
        self._dynalign("stop", "chaos", "--runs", str(self.folder.parent))
        self._ended(0)
        self._steps = json.loads((self.folder / layout.SUMMARY).read_text())["step"] + 3
        self._submit()
        self._ended(0)

    def _kill(self, kind: str, rng: random.Random) -> None:
        match kind:
            case "worker" | "worker hangs":
                victim = rng.choice(self._actors("RolloutWorker"))
                victim.send_signal(signal.SIGKILL if kind == "worker" else signal.SIGSTOP)
            case "ledger":
                self._actors("LedgerActor")[0].kill()
            case "coordinator":
                self._actors("Coordinator")[0].kill()
            case "learner":
                self._actors("LearnerRank")[0].kill()
            case "node" if self._second is not None:
                _kill_tree(self._second.pid)
                self._add_second_node()
            case "driver" if self._driver is not None:
                self._driver.kill()
                self._driver.wait()
                self._submit()

    def _actors(self, kind: str) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            with suppress(psutil.Error):
                title = " ".join(process.info["cmdline"] or [])
                if (
                    title.startswith(f"ray::{kind}")
                    and process.environ().get(MARK) == self._mark
                    and process.status() != "zombie"
                ):
                    found.append(process)
        if not found:
            raise RunFailed(f"there is no {kind} to be killed")
        return sorted(found, key=lambda process: process.pid)

    def _submit(self) -> None:
        settings = [
            f"model={self._model}", f"runs={self.folder.parent}", "name=chaos", f"steps={self._steps}",
            f"rollout.workers={WORKERS}", "rollout.engine=deterministic", "rollout.prompts_per_step=4",
            "rollout.group_size=8", "rollout.max_completion_tokens=64",
            f"algorithm.max_staleness={MAX_STALENESS}", "judge.min_digit_mass=0.0",
            "heldout.prompts=4", "heldout.every_steps=100", "checkpoint.every_steps=25",
            "experience.keep_steps=0", "tensorboard=false", "metrics.port=null",
            "placement.object_store_gib=0.2", "deadlines.silence_s=8",
            "supervision.restarts=100", "supervision.window_s=60", "supervision.poison_attempts=5",
        ]  # fmt: skip
        command = [sys.executable, "-m", "dynalign.launch.cli", "train", "quickstart", *settings]
        self._driver = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=self._environment)

    def _serves(self) -> bool:
        if self._driver is not None and self._driver.poll() is not None:
            raise RunFailed(f"the driver ended with {self._driver.returncode}: {self._last_words()}")
        told = self._status()
        serving = [worker for worker in told.get("workers", []) if worker["state"] == "serving"]
        # The file of a driver that was killed is old; a ledger or coordinator that is away leaves it
        # unwritten or unchanged.
        fresh = time.time() - (self.folder / layout.STATUS).stat().st_mtime < 3.0 if told else False
        if not fresh or len(serving) != WORKERS:
            return False
        return bool(told["state"] == "running" and told["ledger"]["leasing"])

    def _recoveries(self, kind: str) -> int:
        """How often the run has said that it recovered from this; a new driver says it by its lineage."""
        if kind == "driver":
            return int(self._status()["lineage"])
        return sum(
            event.what == "recovered" and event.kind == SAID_OF[kind] for event in read_events(self.folder)
        )

    def _recovered(self, kind: str, recoveries: int, step: int) -> bool:
        """Said, and seen by a step of the new order: what recovers has really worked.

        A learner may have gone back before `step`.
        """
        return self._recoveries(kind) > recoveries and self._serves() and self._moved(step)

    def _moved(self, step: int) -> bool:
        """Two different steps are seen, both written after the kill."""
        now = self._status()["step"]
        time.sleep(1.0)
        return bool(now != step and self._status()["step"] != now)

    def _status(self) -> dict[str, Any]:
        file = self.folder / layout.STATUS
        told: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return told

    def _until(self, what: str, there: Callable[[], bool]) -> None:
        end_s = time.monotonic() + RECOVERY_S
        while not there():
            if time.monotonic() > end_s:
                raise DeadlineExceeded(f"{what}; {self._last_words()}", RECOVERY_S)
            time.sleep(0.2)

    def _ended(self, code: int) -> None:
        assert self._driver is not None
        ended = self._driver.wait(RECOVERY_S)
        if ended != code:
            raise RunFailed(f"the driver ended with {ended}: {self._last_words()}")

    def _dynalign(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "dynalign.launch.cli", *arguments]
        subprocess.run(command, env=self._environment, check=True, timeout=120, capture_output=True)

    def _last_words(self) -> str:
        return " | ".join((self.scratch / "train.log").read_text(errors="replace").splitlines()[-6:])

    def _add_second_node(self) -> None:
        self._second = self._node(f"--address={self._environment['RAY_ADDRESS']}", "--num-cpus=1")

    def _node(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = self.scratch / f"node-{time.time_ns()}.log"
        arguments += (
            "--object-store-memory=150000000",
            "--min-worker-port=0",
            "--max-worker-port=0",
            "--disable-usage-stats",
        )
        with log.open("w") as out:
            process = subprocess.Popen(
                [_RAY, "start", "--block", *arguments], env=self._environment, stdout=out, stderr=out
            )
        end_s = time.monotonic() + 90.0
        while "Ray runtime started" not in log.read_text():
            if process.poll() is not None or time.monotonic() > end_s:
                raise RunFailed(f"a Ray node does not start: {log.read_text()[-400:]}")
            time.sleep(0.2)
        return process

    def _clear(self) -> None:
        """Every process that bears the mark."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get(MARK) == self._mark:
                    process.kill()


def _kill_tree(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        node = psutil.Process(pid)
        for process in [*node.children(recursive=True), node]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def table(lost_s: dict[str, list[float]], found: Audit) -> list[str]:
    """The account, in Markdown."""
    lines = ["| killed | times | seconds until all serves again: median | longest |", "|---|---|---|---|"]
    lines += [
        f"| {kind} | {len(times)} | {median(times):.1f} | {max(times):.1f} |"
        for kind, times in lost_s.items()
        if times
    ]
    sums = f"issued {found.issued} = trained {found.trained} + withheld {found.withheld}"
    beside = f"requeued {found.requeued}, late {found.late}, rolled back {found.rolled_back}"
    lines += ["", f"{sums}; {beside}; {found.steps} steps, {found.lineages} lineages"]
    return lines + (
        [f"WRONG: {mistake}" for mistake in found.mistakes[:20]]
        or ["nothing was lost, nothing was trained twice"]
    )


if __name__ == "__main__":
    sys.exit(chaos.main(standalone_mode=False))
