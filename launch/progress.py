"""The progress of a run on the screen: a live panel in a terminal, one plain line per step in a log.

The driver polls the coordinator and hands each status to `ProgressView.update`; the terminal's clock runs
on between two polls.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from types import TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dynalign.launch.summary import duration
from dynalign.run_folder.run_status import AlarmStatus, RunStatus, WorkerStatus

HEARTBEAT_S = 60.0
"""Longest time without a line in a log: a reader must see that the run is alive, and what it waits for."""
REMEMBERED_STEPS = 24
"""Steps in the reward's sparkline; the time left is estimated from the newest fifth, at least 4 steps."""
SPARKS = "▁▂▃▄▅▆▇█"
STATE_STYLES = {
    "running": "green",
    "finished": "green",
    "starting": "cyan",
    "paused": "yellow",
    "stopping": "yellow",
    "failed": "red",
}
SHOWN_WORKERS = 8
_ACCOUNT = ("trained", "issued", "withheld")
ABSENT = "–"


class ProgressView:
    """A context manager that shows the progress of a run.

    In a terminal it draws a live panel. Elsewhere it prints a line per step, per start-up phase and per
    change of state, and at least one a minute.
    """

    def __init__(self, console: Console | None = None, now: Callable[[], float] = time.time) -> None:
        self._console = console or Console()
        self._now = now
        self._status = RunStatus("", "starting")
        self._phases: list[tuple[str, float]] = []
        self._rewards: deque[float] = deque(maxlen=REMEMBERED_STEPS)
        self._step_times_s: deque[float] = deque(maxlen=REMEMBERED_STEPS)
        self._heldout: dict[str, tuple[int, float]] = {}
        self._seen_step = -1
        self._said: tuple[object, ...] = ()
        self._alarmed: set[tuple[str, int]] = set()
        self._began_s = now()
        self._said_s = self._began_s
        terminal = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live: Live | None = None
        if terminal:
            self._live = Live(console=self._console, get_renderable=self.panel, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, status: RunStatus) -> None:
        """Takes a new status in. Cheap enough for every second."""
        self._status = status
        phase = status.phase
        if phase and status.state == "starting" and (not self._phases or self._phases[-1][0] != phase):
            self._phases.append((phase, self._now()))
        self._remember(status.metrics or {})
        if not self._live:
            self._log()

    def _remember(self, row: Mapping[str, Any]) -> None:
        step = row.get("step")
        if step is None or step == self._seen_step:
            return
        self._seen_step = step
        for name in ("heldout_reward_mean", "heldout_prompted_reward_mean"):
            if row.get(name) is not None:
                self._heldout[name] = (step, row[name])
        if row.get("reward_mean") is not None:
            self._rewards.append(row["reward_mean"])
        if row.get("step_s") is not None:
            self._step_times_s.append(row["step_s"])

    # -- words shared by both forms ---------------------------------------------------------------

    def _elapsed_s(self) -> float:
        """Seconds since the run started or this view was opened, whichever was first."""
        started_s = self._status.started_s
        return self._now() - (self._began_s if started_s is None else min(started_s, self._began_s))

    def _left(self) -> str | None:
        """`about 9 min left`, from the newest steps; None before the first and after the last one."""
        steps = self._status.steps - self._status.step
        recent = list(self._step_times_s)[-max(4, len(self._step_times_s) // 5) :]
        if not recent or steps <= 0 or self._status.state != "running":
            return None
        left_s = steps * fmean(recent)
        rounded = duration(left_s if left_s < 90 else 60 * round(left_s / 60))
        return f"about {rounded} left".replace(" 00 s", "")

    def _heldout_words(self) -> str:
        labels = {"heldout_reward_mean": "held-out", "heldout_prompted_reward_mean": "with prompt"}
        parts = [f"{labels[name]} {value:.2f} (step {step})" for name, (step, value) in self._heldout.items()]
        return " · ".join(parts) or "held-out –"

    def _batch_words(self) -> str:
        """What the next batch waits for; empty while it waits for nothing."""
        words = self._status.waiting_for
        return "" if words.startswith("nothing") else words

    # -- a log ------------------------------------------------------------------------------------

    def _log(self) -> None:
        status = self._status
        row = status.metrics or {}
        state = status.state
        phase = status.phase
        said = (state, phase if state == "starting" else None, row.get("step"), status.lineage)
        if said == self._said and self._now() - self._said_s < HEARTBEAT_S:
            return
        new_step = row.get("step") is not None and (not self._said or self._said[2:] != said[2:])
        if new_step:
            line = self._step_line(row) + ("" if state == "running" else f" · {state}")
        else:
            doing = [words for words in (phase.removeprefix(f"{state}: "), self._batch_words()) if words]
            line = f"{state}: {'; '.join(doing) or self._counts()}"
        clock = time.strftime("%H:%M:%S", time.localtime(self._now()))
        self._console.print(Text(f"{clock} {line}"), soft_wrap=True)
        for alarm in status.alarms:
            if (alarm.name, alarm.fired_step) not in self._alarmed:
                self._console.print(Text(f"{clock} {_alarm_line(alarm)}"), soft_wrap=True)
        self._alarmed = {(alarm.name, alarm.fired_step) for alarm in status.alarms}
        self._said = said
        self._said_s = self._now()

    def _counts(self) -> str:
        step = f"step {self._status.step}/{self._status.steps or '?'}"
        return f"{step}, {duration(self._elapsed_s())} since the start"

    def _step_line(self, row: Mapping[str, Any]) -> str:
        # The row's own account, where it has one: the status' may be from before the step was committed.
        ledger = {name: row.get(name, self._status.ledger.get(name, ABSENT)) for name in _ACCOUNT}
        parts = [f"step {row['step']}/{self._status.steps or '?'}" if row["step"] else "before training"]
        if row.get("reward_mean") is not None:
            parts.append(f"reward {_number(row, 'reward_mean')}")
        if row.get("heldout_reward_mean") is not None or row.get("heldout_prompted_reward_mean") is not None:
            prompted = _number(row, "heldout_prompted_reward_mean")
            parts.append(f"held-out {_number(row, 'heldout_reward_mean')}, with prompt {prompted}")
        if row["step"] > 0:
            parts += [
                f"{_number(row, 'generate_tokens_per_s', 0)} tok/s",
                f"age {_number(row, 'staleness_mean', 1)} (max {_number(row, 'staleness_max', 0)})",
                f"{_number(row, 'step_s', 1)} s ({', '.join(_time_split(row))})",
                f"trained {ledger['trained']} of {ledger['issued']}, withheld {ledger['withheld']}",
            ]
        if self._status.alarms:
            parts.append(f"alarms: {', '.join(alarm.name for alarm in self._status.alarms)}")
        if left := self._left():
            parts.append(left)
        return " · ".join(parts)

    # -- a terminal -------------------------------------------------------------------------------

    def panel(self) -> RenderableType:
        """The terminal's frame as of now."""
        state = self._status.state
        title = Text.assemble(("dynalign ", "bold"), self._status.run)
        lineage = self._status.lineage
        resumed = f", lineage {lineage}" if lineage > 1 else ""
        subtitle = Text.assemble(
            (state, STATE_STYLES.get(state, "")), f" · {duration(self._elapsed_s())}{resumed}"
        )
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(style="dim", no_wrap=True, width=8)
        grid.add_column(ratio=1)
        for label, value in self._starting_lines() if state == "starting" else self._running_lines():
            grid.add_row(label, value)
        return Panel(
            grid,
            title=title,
            title_align="left",
            subtitle=subtitle,
            subtitle_align="right",
            border_style="dim",
            padding=(0, 1),
        )

    def _starting_lines(self) -> Iterator[tuple[str, RenderableType]]:
        began_s = [began_s for _, began_s in self._phases]
        for index, (phase, _) in enumerate(self._phases):
            now = index == len(self._phases) - 1
            took = duration((self._now() if now else began_s[index + 1]) - began_s[index])
            yield (
                ("starting" if index == 0 else ""),
                Text.assemble(("› ", "cyan") if now else ("✓ ", "green"), phase, (f"  {took}", "dim")),
            )
        if not self._phases:
            yield "starting", Text("…")

    def _running_lines(self) -> Iterator[tuple[str, RenderableType]]:
        status = self._status
        row = status.metrics or {}
        yield "step", self._bar()
        trend = _sparkline(list(self._rewards))
        mean = (_number(row, "reward_mean"), "bold")
        reward = Text.assemble("training ", mean, f" {trend}" if trend else "")
        yield "reward", reward.append(f" · {self._heldout_words()}")
        generated = f"{_number(row, 'generate_tokens_per_s', 0)}/s generated"
        learned = f"{_number(row, 'learn_tokens_per_s', 0)}/s learned"
        length = f"mean length {_number(row, 'completion_length_mean', 0)}"
        truncated = f"cut {_percent(row, 'truncated_fraction')}"
        yield "tokens", Text(f"{generated} · {learned} · {length} · {truncated}")
        ages = f"mean {_number(row, 'staleness_mean', 1)}, max {_number(row, 'staleness_max', 0)}"
        yield "age", Text(f"{ages} versions")
        yield "time", Text(f"step {_number(row, 'step_s', 1)} s: {' · '.join(_time_split(row))}")
        if status.alarms:
            yield "alarms", Text("\n".join(_alarm_line(alarm) for alarm in status.alarms), style="red")
        yield "ledger", _ledger_text(status.ledger)
        yield "workers", _workers_text(status.supervision.workers)
        if engines := status.supervision.engines:
            yield "judge", Text(", ".join(f"{engine.name} {engine.state}" for engine in engines))
        for endpoint in status.supervision.endpoints:
            yield f"endpoint {endpoint.name}", Text(endpoint.account)
        if phase := status.phase:
            yield "now", Text(phase, style="yellow" if status.state == "paused" else "")
        if batch := self._batch_words():
            yield "batch", Text(batch)

    def _bar(self) -> RenderableType:
        step = self._status.step
        steps = max(1, self._status.steps)
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        bar = ProgressBar(total=steps, completed=step, complete_style="green", finished_style="green")
        left = Text(self._left() or f"{100 * step // steps} %")
        grid.add_row(Text(f"{step}/{steps}", style="bold"), bar, left)
        return grid


def _alarm_line(alarm: AlarmStatus) -> str:
    return f"alarm {alarm.name}: {alarm.words}"


def _number(row: Mapping[str, Any], name: str, digits: int = 2) -> str:
    value = row.get(name)
    return ABSENT if value is None else f"{value:,.{digits}f}"


def _percent(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return ABSENT if value is None else f"{100 * value:.0f} %"


def _time_split(row: Mapping[str, Any]) -> list[str]:
    """Seconds by activity. They need not add up to the step's: rollout and learner work at the same time."""
    names = {"generate": "generate_s", "score": "score_s", "learn": "learn_s", "wait": "learner_wait_s"}
    return [f"{label} {_number(row, name, 1)}" for label, name in names.items()]


def _ledger_text(ledger: Mapping[str, Any]) -> Text:
    """The conservation law on two lines, to fit 80 columns, then the other counters that are not zero."""
    shown = {
        name: ledger.get(name, ABSENT)
        for name in ("issued", "pending", "leased", "scored", "trained", "withheld")
    }
    issued = f"issued {shown['issued']} "
    text = Text(
        f"{issued}= pending {shown['pending']} + leased {shown['leased']} + scored {shown['scored']}\n"
    )
    text.append(f"{' ' * len(issued)}+ trained {shown['trained']} + withheld {shown['withheld']}")
    beside = [
        f"{name.replace('_', ' ')} {ledger[name]}"
        for name in ("requeued", "late", "rolled_back")
        if ledger.get(name)
    ]
    return text.append("".join(f" · {words}" for words in beside), style="yellow")


def _workers_text(workers: Sequence[WorkerStatus]) -> Text:
    if not workers:
        return Text("none yet")
    lines = [
        f"{worker.name} {worker.state}, {worker.groups_in_flight} in flight, "
        f"{worker.completion_tokens_total or 0:,} tokens"
        for worker in workers[:SHOWN_WORKERS]
    ]
    if len(workers) > SHOWN_WORKERS:
        lines.append(f"and {len(workers) - SHOWN_WORKERS} more")
    return Text("\n".join(lines))


def _sparkline(values: list[float]) -> str:
    if len(values) < 2:
        return ""
    low = min(values)
    span = max(values) - low
    highest = len(SPARKS) - 1
    return "".join(SPARKS[round(highest * (value - low) / span) if span else 0] for value in values)
