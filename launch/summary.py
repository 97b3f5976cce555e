"""How a run ended: `summary.json`, and its lines of text.

`train` prints them at the end of a run, and when it is called again for a run that has finished.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from dynalign.configs.errors import RecordError
from dynalign.evaluation.statistics.estimates import Estimate
from dynalign.launch.report.data import Curve, heldout_curve, load_run, training_curve
from dynalign.run_folder import durable, layout

State = Literal["finished", "interrupted", "failed"]
"""How a run ended. An interrupted or failed run can be continued."""


@dataclass(frozen=True, slots=True)
class Change:
    """A reward at the first and at the last step at which it was measured.

    `Change("reward in training", 1, Estimate(1.49, 1.40, 1.58, 32), 20, Estimate(1.59, 1.51, 1.67, 32))`
    """

    what: str
    """Which reward, in words."""
    first_step: int
    """The first step at which it was measured; 0 is before training."""
    first: Estimate
    """The reward at that step, 0 to 5 points."""
    last_step: int
    """The last step at which it was measured."""
    last: Estimate
    """The reward at that step, 0 to 5 points."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a run, as `summary.json` holds it.

    `Summary("quickstart", "finished", step=20, steps=20, wall_s=412.0, issued=32, pending=0, leased=0,
    scored=0, trained=28, withheld_by_reason={"low_signal": 4}, rewards=[…],
    report="/shared/runs/quickstart/report.html",
    checkpoint="/shared/runs/quickstart/checkpoints/step-000020", cause=None)`
    """

    run: str
    """The run's name."""
    state: State
    """How it ended."""
    step: int
    """The last step that was trained; 0 for none."""
    steps: int
    """How many steps it was to train."""
    wall_s: float
    """Seconds that it took, earlier attempts included."""
    issued: int
    """Groups issued; the conservation law: issued = pending + leased + scored + trained + withheld."""
    pending: int
    """Groups that wait for a lease."""
    leased: int
    """Groups that a worker has."""
    scored: int
    """Groups that are scored and not trained yet."""
    trained: int
    """Groups that a committed step has trained on."""
    withheld_by_reason: dict[str, int]
    """Groups that are never trained on, by reason."""
    rewards: list[Change]
    """The rewards that were measured."""
    report: str | None
    """Path of `report.html`."""
    checkpoint: str | None
    """Path of the newest complete checkpoint; None without one."""
    cause: str | None
    """Why the run failed, or which alarm stopped it, on one line; None otherwise."""

    @property
    def withheld(self) -> int:
        """Groups that are never trained on."""
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
    """The summary of the run in a folder, with rewards from its files.

    ledger: the counts of groups by state, and `withheld_by_reason`. wall_s: seconds that the run took.
    """
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
    """Writes `summary.json` and returns its path."""
    path = run_folder / layout.SUMMARY
    durable.write(path, _FORM.dump_json(summary, indent=2).decode() + "\n")
    return path


def read_summary(run_folder: Path) -> Summary | None:
    """The summary of the run in a folder; None while it has not ended.

    Raises RecordError if the file holds none.
    """
    path = run_folder / layout.SUMMARY
    try:
        return _FORM.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        cause = f"{error.error_count()} fields do not fit"
    except IsADirectoryError:
        cause = "it is a folder"
    raise RecordError(f"{path}: not a summary ({cause}); remove it: `dynalign train` writes it again")


def summary_lines(summary: Summary) -> list[str]:
    """The summary as text, a fact per line."""
    steps = f"{summary.step} of {summary.steps} steps"
    lines = [f"run {summary.run} {summary.state}: {steps} in {duration(summary.wall_s)}"]
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
    """The counts of groups, with the reasons of withheld ones, the most frequent first.

    `issued 32 = pending 0 + leased 0 + scored 0 + trained 28 + withheld 4 (low_signal 3, run_ended 1)`
    """
    by_count = sorted(summary.withheld_by_reason.items(), key=lambda pair: (-pair[1], pair[0]))
    reasons = ", ".join(f"{reason} {count}" for reason, count in by_count if count)
    return (
        f"issued {summary.issued} = pending {summary.pending} + leased {summary.leased}"
        f" + scored {summary.scored} + trained {summary.trained} + withheld {summary.withheld}"
    ) + (f" ({reasons})" if reasons else "")


def change_line(change: Change) -> str:
    """A reward's first and last value, with 95 % intervals in brackets.

    `held-out reward: 1.49 (1.40 to 1.58) before training, 1.59 (1.51 to 1.67) at step 20`
    """
    first = f"{change.what}: {_with_interval(change.first)} {_when(change.first_step)}"
    if change.first_step == change.last_step:
        return first
    return f"{first}, {_with_interval(change.last)} {_when(change.last_step)}"


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
