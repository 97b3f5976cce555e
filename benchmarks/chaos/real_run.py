"""The run that a storm strikes: a Ray cluster of two nodes on this machine, and `dynalign train` in it.

Real Ray, real actors and the real learner on a tiny model, with the deterministic engine for the rollout. The
initial policy may veto every score, on an engine of its own: the deterministic one, or vLLM. Every process
that is started here carries a mark in its environment, and only processes with this mark are ever killed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import psutil

from dynalign.benchmarks.chaos.plan import StormPlan, Strike, Victim
from dynalign.benchmarks.chaos.rewards import POISON_WORD, SILENT_WORD
from dynalign.benchmarks.chaos.small_server import MODEL, small_server
from dynalign.benchmarks.chaos.storm import Look
from dynalign.configs.errors import RunFailed

MARK = "DYNALIGN_CHAOS"
"""Environment variable of every process of this storm."""

WORKERS = 3
MAX_STALENESS = 2

TITLES: dict[Victim, str] = {
    "worker": "ray::RolloutWorker",
    "engine": "ray::PoolWorker",
    "gateway": "ray::Gateway",
    "ledger": "ray::LedgerActor",
    "coordinator": "ray::Coordinator",
    "learner": "ray::LearnerRank",
}
"""How the command line of each kind of actor begins."""

HOLDS_JUDGE: frozenset[Victim] = frozenset({"engine", "node", "driver"})
"""What ends the initial policy's engine when it is struck."""

POISON_PROMPT = f"Describe {POISON_WORD} to a gardener."
PROMPTS = 300
SILENT_PROMPTS = 15
HELDOUT_PROMPTS = 4

JudgeEngine = Literal["deterministic", "vllm"]
"""What holds the initial policy, which vetoes scores."""
ENGINE_SETTINGS: Mapping[JudgeEngine, tuple[str, ...]] = {
    "deterministic": ("judge.pool.engine=deterministic", "deadlines.silence_s=8"),
    "vllm": (
        "judge.pool.engine=vllm", "judge.pool.kv_cache_gib=0.1", "judge.pool.dtype=float32",
        "deadlines.silence_s=30",
    ),
}  # fmt: skip
"""A small cache, since it is taken from the machine's memory; vLLM may be silent while it loads."""
RECOVERY_S: Mapping[JudgeEngine, float] = {"deterministic": 240.0, "vllm": 600.0}
"""Longest time from a strike until everything serves again, and for the start and the end of the run: vLLM
takes about a minute to start on a slow core, and may be struck twice."""

STATUS_AGE_S = 3.0
"""A status older than this, in seconds, is of a driver that is gone: a living one writes it every second."""

FEWEST_STEPS = 2_000
STEPS_PER_KILL = 500
"""Steps of a run that is struck: more than it trains before the last recovery, or it would end by itself."""

NODE_START_S = 90.0
SHOWN_LINES = 8
_RAY = str(Path(sys.executable).with_name("ray"))


class RealRun:
    """One run in its own folders below `scratch`, which this class does not remove."""

    def __init__(
        self, scratch: Path, model: Path, plan: StormPlan, judge_engine: JudgeEngine = "deterministic"
    ) -> None:
        self.scratch = scratch
        self.recovery_s = RECOVERY_S[judge_engine]
        self._judge_engine = judge_engine
        self.folder = scratch / "runs" / "chaos"
        self.log = scratch / "train.log"
        self.mirror = scratch / "mirror" / "chaos" if plan.mirror else None
        self._model = model
        self._plan = plan
        self._mark = f"{os.getpid()}-{time.time_ns()}"
        self._environment = os.environ | {
            MARK: self._mark,
            "RAY_AUTH_MODE": "disabled",
            "HOME": str(scratch),
            "RAY_raylet_start_wait_time_s": "60",
        }
        self._environment.pop("RAY_ADDRESS", None)
        self._prompts = _write_prompts(scratch / "prompts.jsonl")
        self._steps = FEWEST_STEPS + STEPS_PER_KILL * plan.kills
        self._driver: subprocess.Popen[bytes] | None = None
        self._second_node: subprocess.Popen[bytes] | None = None
        self._hung: list[psutil.Process] = []
        self._address = "http://127.0.0.1:1/v1"  # until the server is there

    @contextmanager
    def started(self) -> Iterator[None]:
        """The cluster and the driver. At the end every process with the mark is killed.

        The first node has a core for each learner rank, the judges' engine and two workers, the second one
        for the third worker.
        """
        with ExitStack() as stack:
            self._address = stack.enter_context(small_server())
            stack.callback(self._clear)
            temporary = self.scratch / "ray"
            cores = self._plan.ranks + WORKERS
            options = (
                "--port=0",
                "--include-dashboard=false",
                f"--temp-dir={temporary}",
                f"--num-cpus={cores}",
            )
            self._start_node("--head", *options)
            self._environment["RAY_ADDRESS"] = (temporary / "ray_current_cluster").read_text().strip()
            self._start_second_node()
            self._start_driver()
            yield

    def settings(self) -> list[str]:
        """What differs from `quickstart`, as overrides of the command line.

        All experience is kept, for the audit: the plan refuses more steps than the disk can hold. The
        deadlines are short, so that what hangs is noticed soon. Checkpoints are close, so that most strikes
        meet a run that has one, and some the writing of one.
        """
        settings = [
            f"model={self._model}", f"runs={self.folder.parent}", "name=chaos", f"steps={self._steps}",
            f"prompts.source={self._prompts}", "prompts.max_tokens=1024", "judge.kind=function",
            "judge.function=dynalign.benchmarks.chaos.rewards:storm_reward",
            f"rollout.workers={WORKERS}", "rollout.engine=deterministic", "rollout.prompts_per_step=4",
            "rollout.group_size=8", "rollout.max_completion_tokens=64", f"learner.ranks={self._plan.ranks}",
            f"algorithm.max_staleness={MAX_STALENESS}", f"heldout.prompts={HELDOUT_PROMPTS}",
            "heldout.every_steps=100", "checkpoint.every_steps=5", "learner.precision=float32",
            "tensorboard=false", "metrics.port=null",
            *ENGINE_SETTINGS[self._judge_engine], "judge.veto=[frozen]", "judge.probes=[beside]",
            "judge.min_digit_mass=0.0",
            f"judge.endpoints.beside.address={self._address}", f"judge.endpoints.beside.model={MODEL}",
            "placement.object_store_gib=0.2", "supervision.restarts=100", "supervision.window_s=60",
            "supervision.poison_attempts=5", "deadlines.step_s=30",
            "deadlines.checkpoint_s=60", "weights.deadline_s=40",
        ]  # fmt: skip
        return (
            settings if self.mirror is None else [*settings, f"checkpoint.mirror=file://{self.mirror.parent}"]
        )

    # -- what the storm asks for

    def look(self) -> Look:
        status = self._status()
        serving = [worker for worker in status.get("workers", ()) if worker["state"] == "serving"]
        judging = [engine["state"] == "serving" for engine in status.get("engines", ())]
        serves = (
            status.get("state") == "running"
            and time.time() - (self.folder / "status.json").stat().st_mtime < STATUS_AGE_S
            and len(serving) == WORKERS
            and judging == [True]
            and len(status.get("endpoints", ())) == 1
            and status["ledger"]["leasing"]
        )
        return Look(
            driver_ended=None if self._driver is None else self._driver.poll(),
            serves=serves,
            step=status.get("step") or 0,
            lineage=status.get("lineage") or 0,
            deaths=self._deaths(),
            missing=self._missing(),
            last_lines=" | ".join(self.log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]),
        )

    def strike(self, strike: Strike) -> tuple[str, frozenset[Victim]] | None:
        match strike.victim:
            case "driver":
                return self._strike_driver()
            case "node":
                return self._strike_node()
            case kind:
                return self._strike_actor(kind, strike)

    def wake(self) -> int:
        woken = 0
        for process in self._hung:
            with suppress(psutil.NoSuchProcess):
                if process.status() == psutil.STATUS_STOPPED:
                    process.resume()
                    woken += 1
        self._hung = []
        return woken

    def stop(self) -> None:
        command = [sys.executable, "-m", "dynalign.launch.cli", "stop", str(self.folder)]
        done = subprocess.run(command, env=self._environment, timeout=120, capture_output=True, text=True)
        if done.returncode != 0:
            raise RunFailed(
                f"`dynalign stop` ended with exit status {done.returncode}: {done.stderr.strip()}"
            )

    def train_further(self, steps: int) -> None:
        self._steps = json.loads((self.folder / "summary.json").read_text())["step"] + steps
        self._start_driver()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def now_s(self) -> float:
        return time.monotonic()

    # -- strikes

    def _strike_actor(self, kind: Victim, strike: Strike) -> tuple[str, frozenset[Victim]] | None:
        found = self._working(kind)
        if not found:
            return None
        victim = found[int(strike.pick * len(found))]
        try:
            victim.send_signal(signal.SIGKILL if strike.how == "dies" else signal.SIGSTOP)
        except psutil.NoSuchProcess:
            return None
        if strike.how == "hangs":
            self._hung.append(victim)
        return f"{kind} {victim.pid}", frozenset({kind})

    def _strike_node(self) -> tuple[str, frozenset[Victim]] | None:
        if self._second_node is None:
            return None
        tree = _tree(self._second_node.pid)
        kinds = frozenset(kind for process in tree if (kind := _kind(process)) is not None)
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        words = f"node {self._second_node.pid} with {', '.join(sorted(kinds)) or 'no actor'}"
        self._second_node.wait()
        self._start_second_node()
        return words, kinds

    def _strike_driver(self) -> tuple[str, frozenset[Victim]] | None:
        if self._driver is None:
            return None
        words = f"driver {self._driver.pid}"
        self._driver.kill()
        self._driver.wait()
        self._start_driver()
        return words, frozenset({"driver"})

    # -- what it sees

    def _status(self) -> dict[str, Any]:
        """The last status; {} before the first one."""
        file = self.folder / "status.json"
        status: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return status

    def _deaths(self) -> Counter[Victim]:
        file = self.folder / "events.jsonl"
        lines = file.read_text("utf-8").split("\n")[:-1] if file.exists() else []
        events = map(json.loads, lines)
        return Counter(event["kind"] for event in events if event["what"] == "died")

    def _missing(self) -> tuple[Victim, ...]:
        wanted = dict.fromkeys(TITLES, 1) | {"worker": WORKERS, "learner": self._plan.ranks}
        found = Counter(kind for process in self._processes() if (kind := _working_kind(process)) is not None)
        return tuple(kind for kind in TITLES if found[kind] < wanted[kind])

    def _working(self, kind: Victim) -> list[psutil.Process]:
        found = [process for process in self._processes() if _working_kind(process) == kind]
        return sorted(found, key=lambda process: process.pid)

    def _processes(self) -> Iterator[psutil.Process]:
        """The processes with the mark, this one excepted."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has ended, or belongs to another user
                if process.pid != os.getpid() and process.environ().get(MARK) == self._mark:
                    yield process

    # -- what it starts

    def _start_driver(self) -> None:
        command = [sys.executable, "-m", "dynalign.launch.cli", "train", "quickstart", *self.settings()]
        with self.log.open("a") as log:
            self._driver = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)

    def _start_second_node(self) -> None:
        self._second_node = self._start_node(f"--address={self._environment['RAY_ADDRESS']}", "--num-cpus=1")

    def _start_node(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = self.scratch / f"node-{time.time_ns()}.log"
        ports = ("--min-worker-port=0", "--max-worker-port=0")
        options = (*arguments, *ports, "--object-store-memory=150000000", "--disable-usage-stats")
        with log.open("w") as out:
            command = [_RAY, "start", "--block", *options]
            process = subprocess.Popen(command, env=self._environment, stdout=out, stderr=out)
        end_s = time.monotonic() + NODE_START_S
        while "Ray runtime started" not in log.read_text():
            if process.poll() is not None or time.monotonic() > end_s:
                raise RunFailed(f"a Ray node does not start: {log.read_text()[-400:]}")
            time.sleep(0.2)
        return process

    def _clear(self) -> None:
        for process in self._processes():
            with suppress(psutil.Error):
                process.kill()


def _write_prompts(file: Path) -> Path:
    """Prompts of which one ends its worker, and some give groups without signal."""
    texts = [f"Name use {number} of a rope." for number in range(PROMPTS - SILENT_PROMPTS - 1)]
    texts += [f"Explain {SILENT_WORD} in way {number}." for number in range(SILENT_PROMPTS)]
    rows = [{"prompt": text, "split": "train"} for text in [*texts, POISON_PROMPT]]
    rows += [{"prompt": f"Plan day {day}.", "split": "heldout"} for day in range(HELDOUT_PROMPTS)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def _kind(process: psutil.Process) -> Victim | None:
    """The kind of actor that a process is; None for any other process."""
    with suppress(psutil.Error):
        title = " ".join(process.cmdline())
        return next((kind for kind, start in TITLES.items() if title.startswith(start)), None)
    return None


def _working_kind(process: psutil.Process) -> Victim | None:
    """As `_kind`, but None for what has ended or hangs."""
    with suppress(psutil.Error):
        idle = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED, psutil.STATUS_DEAD)
        return None if idle else _kind(process)
    return None


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        node = psutil.Process(pid)
        return [*node.children(recursive=True), node]
    return []
