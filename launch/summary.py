"""How a run ended: `summary.json`, and the lines that say it at the end of a run and whenever the ended run is asked for again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from dynalign.configs.errors import RecordError
from dynalign.launch.report.data import Curve, heldout_curve, load_run, training_curve
from dynalign.launch.report.intervals import Estimate
from dynalign.run_folder import durable, layout

State = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class Change:
    """A reward at the first and the last step at which it was measured, in points of 5. Step 0 is before training."""

    what: str
    first_step: int
    first: Estimate
    last_step: int
    last: Estimate


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a run. The counts are groups and obey the conservation law; `report` and `checkpoint` are paths."""

    run: str
    state: State
    step: int
    steps: int
    wall_s: float
    issued: int
    pending: int
    leased: int
    scored: int
    trained: int
    withheld_by_reason: dict[str, int]
    rewards: list[Change]
    report: str | None
    checkpoint: str | None
    cause: str | None

    @property
    def withheld(self) -> int:
        return sum(self.withheld_by_reason.values())


_FORM = TypeAdapter(Summary)


def summarize(
    run_folder: Path,
    state: State,
    steps: int,
    ledger: Mapping[str, Any],
    wall_s: float,
    checkpoint: Path | None = None,
    cause: str | None = None,
) -> Summary:
    """The summary of the run in a folder: counts from `ledger` (its terms and `withheld_by_reason`), rewards from the files."""
    run = load_run(run_folder)
    last = run.last_row
    curves = {
        "reward in training": training_curve(run),
        "held-out reward, without the system prompt": heldout_curve(run, prompted=False),
        "held-out reward, with it": heldout_curve(run, prompted=True),
    }
    return Summary(
        run=run.name,
        state=state,
        step=last["step"] if last else 0,
        steps=steps,
        wall_s=wall_s,
        **{term: ledger[term] for term in ("issued", "pending", "leased", "scored", "trained")},
        withheld_by_reason=dict(ledger["withheld_by_reason"]),
        rewards=[_change(what, curve) for what, curve in curves.items() if curve],
        report=str(run_folder / layout.REPORT),
        checkpoint=None if checkpoint is None else str(checkpoint),
        cause=cause,
    )


def _change(what: str, curve: Curve) -> Change:
    return Change(what, *curve[0], *curve[-1])


def write_summary(run_folder: Path, summary: Summary) -> Path:
    path = run_folder / layout.SUMMARY
    durable.write(path, _FORM.dump_json(summary, indent=2).decode() + "\n")
    return path


def read_summary(run_folder: Path) -> Summary | None:
    """None while the run has not ended.

    :raises RecordError: a file that is not a summary.
    """
    path = run_folder / layout.SUMMARY
    if not path.exists():
        return None
    try:
        return _FORM.validate_json(path.read_bytes())
    except ValidationError as error:
        raise RecordError(f"{path}: not a summary ({error.error_count()} fields do not fit)") from error


def summary_lines(summary: Summary) -> list[str]:
    """What a person reads at the end, a line each; the ledger's account stands in one line that adds up."""
    lines = [
        f"run {summary.run} {summary.state}: {summary.step} of {summary.steps} steps in {duration(summary.wall_s)}"
    ]
    if summary.cause:
        lines.append(f"cause: {summary.cause}")
    lines += [change_line(change) for change in summary.rewards]
    lines.append(conservation_line(summary))
    if summary.checkpoint:
        lines.append(f"checkpoint: {summary.checkpoint}")
    if summary.report:
        lines.append(f"report: {summary.report}")
    return lines


def conservation_line(summary: Summary) -> str:
    """`issued 32 = pending 0 + leased 0 + scored 0 + trained 28 + withheld 4 (low_signal 3, run_ended 1)`, reasons by count."""
    by_count = sorted(summary.withheld_by_reason.items(), key=lambda pair: (-pair[1], pair[0]))
    reasons = ", ".join(f"{reason} {count}" for reason, count in by_count if count)
    return (
        f"issued {summary.issued} = pending {summary.pending} + leased {summary.leased} + scored {summary.scored}"
        f" + trained {summary.trained} + withheld {summary.withheld}" + (f" ({reasons})" if reasons else "")
    )


def change_line(change: Change) -> str:
    """`held-out reward: 1.49 (1.40 to 1.58) before training, 1.59 (1.51 to 1.67) at step 20`; brackets hold 95 % intervals."""
    first = f"{change.what}: {_with_interval(change.first)} {_when(change.first_step)}"
    return (
        first
        if change.first_step == change.last_step
        else f"{first}, {_with_interval(change.last)} {_when(change.last_step)}"
    )


def _with_interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.2f}"
    return f"{estimate.mean:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _when(step: int) -> str:
    return f"at step {step}" if step else "before training"


def duration(seconds: float) -> str:
    """`8 s`, `4 min 12 s`, `3 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
