"""What a run says about itself: `metrics.jsonl` (one row per step), `heldout.jsonl` (one row per held-out answer), TensorBoard.

Both files are only ever appended to, and each line carries a format number. A step that was rolled back is superseded by the rows of
a newer lineage; the readers give the history that leads to the newest weights.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from configs.errors import RecordError

FORMAT = 1
METRICS_FILE = "metrics.jsonl"
HELDOUT_FILE = "heldout.jsonl"
TENSORBOARD_FOLDER = "tensorboard"

logger = logging.getLogger(__name__)

Row = dict[str, Any]
"""One row of `metrics.jsonl`: every name of `METRICS`, int, float, or None where a value does not apply (yet)."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Metric:
    """One name in `metrics.jsonl`. `unit` "1" is a plain number; `section` groups TensorBoard tags (`section/name`)."""

    name: str
    unit: str
    help: str
    section: str


METRICS: tuple[Metric, ...] = (
    Metric("step", "step", "Optimizer step; row 0 holds only the held-out figures before training.", "run"),
    Metric("lineage", "1", "Counts starts and roll-backs of the run: 1 for the first start.", "run"),
    Metric("policy_version", "step", "Newest published weight version: the step that made it.", "run"),
    Metric("loss", "1", "GRPO loss of the step, over the completion tokens of all ranks.", "learner"),
    Metric("grad_norm", "1", "Global gradient norm before clipping.", "learner"),
    Metric("learning_rate", "1", "Learning rate of the step.", "learner"),
    Metric("entropy", "nats", "Mean entropy of the policy's next-token distribution over completion tokens.", "learner"),
    Metric("kl", "nats", "KL of the policy to the initial one per completion token, as the k3 estimator.", "learner"),
    Metric("reward_mean", "points", "Mean of the parsed scores of the step's candidates.", "reward"),
    Metric("reward_std", "points", "Mean over groups of the standard deviation (n - 1) of a group's parsed scores.", "reward"),
    Metric("heldout_reward_mean", "points", "Mean score of held-out prompts answered without the system prompt.", "reward"),
    Metric("heldout_prompted_reward_mean", "points", "Mean score of held-out prompts answered with the system prompt.", "reward"),
    Metric("frozen_judge_reward_mean", "points", "Mean score of the step's candidates by the initial policy as judge.", "reward"),
    Metric("no_signal_fraction", "fraction", "Share of the step's scored groups whose scores do not differ beyond noise.", "judge"),
    Metric("score_saturation_fraction", "fraction", "Share of parsed scores within 0.1 points of 0 or 5.", "judge"),
    Metric("unparsed_fraction", "fraction", "Share of candidates whose verdict could not be read.", "judge"),
    Metric("digit_mass_mean", "fraction", "Mean probability that the judge answers with one of the six digits.", "judge"),
    Metric("judge_noise_std", "points", "Standard deviation of a score when the same candidate is scored again.", "judge"),
    Metric("score_length_correlation", "1", "Pearson's correlation of scores with completion lengths.", "judge"),
    Metric("internalization_gap", "nats", "Mean over tokens of log pi(y|s,x) - log pi(y|x), one version, one engine.", "policy"),
    Metric("staleness_mean", "steps", "Mean age of the trained tokens, in policy versions.", "policy"),
    Metric("staleness_max", "steps", "Age of the oldest trained token, in policy versions.", "policy"),
    Metric("ratio_mean", "1", "Mean importance ratio over completion tokens.", "policy"),
    Metric("ratio_max", "1", "Largest importance ratio of a completion token.", "policy"),
    Metric("clip_low_fraction", "fraction", "Share of tokens whose ratio was clipped from below.", "policy"),
    Metric("clip_high_fraction", "fraction", "Share of tokens whose ratio was clipped from above.", "policy"),
    Metric("effective_sample_size", "fraction", "Share of tokens that count after weighting: (sum w)^2 / (n sum w^2).", "policy"),
    Metric("logprob_mismatch_mean", "nats", "Mean absolute difference of engine and learner log-probabilities.", "policy"),
    Metric("completion_tokens", "tokens", "Completion tokens trained in the step.", "completion"),
    Metric("completion_length_mean", "tokens", "Mean length of the step's completions.", "completion"),
    Metric("truncated_fraction", "fraction", "Share of completions cut at max_completion_tokens.", "completion"),
    Metric("generate_tokens_per_s", "tokens/s", "Completion tokens sampled per second of the step, all workers.", "throughput"),
    Metric("judgements_per_s", "1/s", "Candidates scored per second of the step, all workers.", "throughput"),
    Metric("learn_tokens_per_s", "tokens/s", "Completion tokens trained per second of learn_s.", "throughput"),
    Metric("step_s", "s", "Whole step, from taking its batch to its commit, waits included.", "time"),
    Metric("generate_s", "s", "Time with candidates in generation during the step, mean over workers.", "time"),
    Metric("score_s", "s", "Time with candidates being scored during the step, mean over workers; may overlap generate_s.", "time"),
    Metric("learn_s", "s", "The learner's step: decode, pack, forward, backward, update.", "time"),
    Metric("learner_wait_s", "s", "The learner's wait for a whole batch.", "time"),
    Metric("straggler_wait_s", "s", "Part of learner_wait_s spent on a late group while enough younger ones were scored.", "time"),
    Metric("rollout_idle_fraction", "fraction", "Share of the step in which a worker had nothing to do, mean over workers.", "time"),
    Metric("weight_sync_s", "s", "Publishing the step's weights so that workers can fetch them.", "time"),
    Metric("weight_sync_pause_s", "s", "Generation paused for loading new weights, mean over workers.", "time"),
    Metric("weight_bytes", "bytes", "Size of one weight version.", "throughput"),
    Metric("issued", "groups", "Groups issued since the run began.", "ledger"),
    Metric("pending", "groups", "Groups waiting for a worker.", "ledger"),
    Metric("leased", "groups", "Groups being generated or scored by a worker.", "ledger"),
    Metric("scored", "groups", "Groups scored and waiting for the learner.", "ledger"),
    Metric("trained", "groups", "Groups trained, each exactly once.", "ledger"),
    Metric("withheld", "groups", "Groups set aside with a reason and never trained.", "ledger"),
    Metric("requeued", "groups", "Leases given back because a worker failed or ran past its deadline.", "ledger"),
    Metric("late", "groups", "Reports refused because their lease was no longer current.", "ledger"),
    Metric("rolled_back", "groups", "Trained groups returned to the queue by a return to a checkpoint.", "ledger"),
    Metric("workers", "workers", "Rollout workers that are ready.", "workers"),
    Metric("worker_restarts", "restarts", "Rollout workers replaced after a failure.", "workers"),
)
METRIC_NAMES: tuple[str, ...] = tuple(metric.name for metric in METRICS)
BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True, slots=True)
class HeldoutItem:
    """One held-out answer. `score` is None if the verdict could not be read; `prompted`: the system prompt was there."""

    step: int
    lineage: int
    prompt_id: str
    prompt: str
    prompted: bool
    score: float | None
    completion: str
    completion_tokens: int
    truncated: bool


class MetricsLog:
    """The one writer of a run's `metrics.jsonl`, `heldout.jsonl` and TensorBoard events, for one lineage.

    A line that a killed writer left half-written is cut off when the log is opened: the next row starts on a line of its own.
    """

    def __init__(self, run_folder: Path, tensorboard: bool, lineage: int) -> None:
        run_folder.mkdir(parents=True, exist_ok=True)
        self._lineage = lineage
        for name in (METRICS_FILE, HELDOUT_FILE):
            _cut_torn_line(run_folder / name)
        self._metrics = (run_folder / METRICS_FILE).open("a", encoding="utf-8")
        self._heldout = (run_folder / HELDOUT_FILE).open("a", encoding="utf-8")
        self._events = EventFileWriter(str(run_folder / TENSORBOARD_FOLDER)) if tensorboard else None
        self._purged = False

    def write(self, row: Mapping[str, float | int | None]) -> Row:
        """Append one step's row and return it whole: missing names are null, never 0, and so is what is not finite (JSON has no
        NaN; a warning names it).

        :raises ValueError: an unknown name, no step, or another lineage than the log's.
        """
        if unknown := sorted(set(row) - set(METRIC_NAMES)):
            raise ValueError(f"unknown metrics {unknown}; the names are in actors/metrics.py")
        if row.get("step") is None or row.get("lineage", self._lineage) != self._lineage:
            raise ValueError(f"a row needs its step and lineage {self._lineage}; got {row.get('step')}, {row.get('lineage')}")
        whole: Row = {name: row.get(name) for name in METRIC_NAMES} | {"lineage": self._lineage}
        for name, value in whole.items():
            if value is not None and not math.isfinite(value):
                logger.warning("step %s: %s is %s; metrics.jsonl keeps it as null", whole["step"], name, value)
                whole[name] = None
        self._metrics.write(_line(whole))
        self._metrics.flush()
        self._write_events(whole)
        return whole

    def write_heldout(self, items: Iterable[HeldoutItem]) -> None:
        """Append held-out answers."""
        self._heldout.writelines(_line(asdict(item)) for item in items)
        self._heldout.flush()

    def _write_events(self, row: Row) -> None:
        if self._events is None:
            return
        now_s, step = time.time(), row["step"]
        if not self._purged:  # tells TensorBoard to forget what an older lineage wrote from this step on
            self._events.add_event(Event(wall_time=now_s, step=step, session_log=SessionLog(status=SessionLog.START)))
            self._purged = True
        values = [
            Summary.Value(tag=f"{metric.section}/{metric.name}", simple_value=row[metric.name])
            for metric in METRICS
            if metric.section != "run" and row[metric.name] is not None
        ]
        self._events.add_event(Event(wall_time=now_s, step=step, summary=Summary(value=values)))
        self._events.flush()

    def close(self) -> None:
        self._metrics.close()
        self._heldout.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_metrics(run_folder: Path) -> list[Row]:
    """The rows of the history that leads to the newest weights, by step; [] without the file.

    :raises RecordError: a line that is not a row, or of an unknown format.
    """
    lines = _read_lines(run_folder / METRICS_FILE, ("step", "lineage"))
    rows: list[Row] = [{name: line.get(name) for name in METRIC_NAMES} for line in lines]
    starts = _starts((row["step"], row["lineage"]) for row in rows)
    newest = {row["step"]: row for row in _history(rows, starts, lambda row: (row["step"], row["lineage"]))}
    return [newest[step] for step in sorted(newest)]


def read_heldout(run_folder: Path) -> list[HeldoutItem]:
    """The held-out answers of the same history, in the order (step, prompted, as written); [] without the file.

    :raises RecordError: a line that is not an item, or of an unknown format.
    """
    names = tuple(HeldoutItem.__slots__)
    items = [HeldoutItem(**{name: line[name] for name in names}) for line in _read_lines(run_folder / HELDOUT_FILE, names)]
    rows = _read_lines(run_folder / METRICS_FILE, ("step", "lineage"))
    starts = _starts([(row["step"], row["lineage"]) for row in rows] + [(item.step, item.lineage) for item in items])
    newest = {(item.step, item.prompted, item.prompt_id): item for item in _history(items, starts, lambda item: (item.step, item.lineage))}
    return sorted(newest.values(), key=lambda item: (item.step, item.prompted))


def _starts(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """lineage → its first step, of (step, lineage) pairs."""
    starts: dict[int, int] = {}
    for step, lineage in pairs:
        starts[lineage] = min(step, starts.get(lineage, step))
    return starts


def _history(rows: Iterable[T], starts: Mapping[int, int], key: Callable[[T], tuple[int, int]]) -> list[T]:
    """The rows that no newer lineage has superseded: it began, at the latest, with its own first row."""
    return [row for row in rows if all(key(row)[1] >= lineage or key(row)[0] < start for lineage, start in starts.items())]


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps({"format": FORMAT, **row}, ensure_ascii=False, allow_nan=False) + "\n"


def _read_lines(path: Path, needed: tuple[str, ...]) -> list[Row]:
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    found: list[Row] = []
    for number, line in enumerate(lines[:-1], start=1):  # after the last newline: nothing, or a line still being written
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RecordError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict) or not set(needed) <= set(row):
            raise RecordError(f"{path}, line {number}: not an object with {', '.join(needed)}")
        if row.setdefault("format", FORMAT) != FORMAT:  # the first lines that were ever written have none
            rule = f"has format {row['format']!r}, this version reads {FORMAT}; use the version that wrote it"
            raise RecordError(f"{path}, line {number} {rule}")
        found.append(row)
    return found


def _cut_torn_line(path: Path) -> None:
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
