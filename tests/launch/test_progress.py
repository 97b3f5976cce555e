"""The progress view: what a log says and when, and what a terminal shows from the first second on."""

import io
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from dynalign.launch.progress import HEARTBEAT_S, ProgressView
from dynalign.run_folder.run_status import RunStatus

LEDGER = {
    "issued": 10,
    "pending": 0,
    "leased": 2,
    "scored": 2,
    "trained": 4,
    "withheld": 2,
    "requeued": 1,
    "late": 0,
    "rolled_back": 0,
}


class Clock:
    """Unix seconds that only tests move."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def status(
    state: str = "running", step: int = 0, row: dict[str, Any] | None = None, **more: Any
) -> RunStatus:
    fixed = {
        "run": "quickstart",
        "state": state,
        "step": step,
        "steps": 8,
        "lineage": 1,
        "started_s": 1_000.0,
        "metrics": row,
    }
    return RunStatus.from_json(fixed | {"ledger": LEDGER, "workers": []} | more)


def row_of(step: int, **values: float) -> dict[str, Any]:
    return {"step": step, "reward_mean": 1.5, "step_s": 30.0, "learn_s": 12.0} | values


def log_view() -> tuple[ProgressView, io.StringIO, Clock]:
    out = io.StringIO()
    clock = Clock()
    return ProgressView(Console(file=out, width=80), clock), out, clock


def terminal_text(*statuses: RunStatus, width: int = 80, after_s: float = 0.0) -> str:
    """The last frame that a terminal of this width shows."""
    clock = Clock()
    view = ProgressView(
        Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None), clock
    )
    for each in statuses:
        view.update(each)
        clock.now_s += after_s
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(view.panel())
    return out.getvalue()


def test_a_log_has_one_line_per_step_however_often_the_status_is_polled() -> None:
    view, out, _ = log_view()
    for step in (1, 1, 1, 2, 2):
        view.update(status(step=step, row=row_of(step)))
    lines = out.getvalue().splitlines()
    assert [line.split(" ", 1)[1].split(" · ")[:2] for line in lines] == [
        ["step 1/8", "reward 1.50"],
        ["step 2/8", "reward 1.50"],
    ]
    assert "trained 4 of 10, withheld 2" in lines[0]


def test_a_log_names_every_start_up_phase_once() -> None:
    view, out, _ = log_view()
    for phase in ("starting Ray", "starting Ray", "loading [the] model"):
        view.update(status("starting", phase=phase))
    assert [line[9:] for line in out.getvalue().splitlines()] == [
        "starting: starting Ray",
        "starting: loading [the] model",
    ]


def test_a_silent_minute_in_a_log_is_broken_by_what_the_run_waits_for() -> None:
    view, out, clock = log_view()
    view.update(status(step=1, row=row_of(1)))
    clock.now_s += HEARTBEAT_S - 1
    view.update(status(step=1, row=row_of(1), phase="waiting for the batch of step 2"))
    assert len(out.getvalue().splitlines()) == 1
    clock.now_s += 1
    view.update(status(step=1, row=row_of(1), phase="learning step 2", waiting_for="1 of 4 groups scored"))
    assert out.getvalue().splitlines()[1][9:] == "running: learning step 2; 1 of 4 groups scored"


def test_a_change_of_state_is_a_line_of_its_own() -> None:
    view, out, _ = log_view()
    view.update(status(step=1, row=row_of(1)))
    view.update(
        status(
            "paused",
            step=1,
            row=row_of(1),
            phase="paused: no signal in step 2",
            waiting_for="nothing: step 2 is reserved",
        )
    )
    assert out.getvalue().splitlines()[1][9:] == "paused: no signal in step 2"


def test_the_time_left_is_the_steps_left_times_the_recent_step_time() -> None:
    view, out, _ = log_view()
    view.update(status(step=4, row=row_of(4, step_s=30.0)))
    assert out.getvalue().rstrip().endswith("about 2 min left")


def test_a_value_that_is_missing_is_a_dash_and_never_zero() -> None:
    view, out, _ = log_view()
    view.update(status(step=1, row={"step": 1, "reward_mean": None, "learn_s": 12.0}))
    assert "– tok/s" in out.getvalue()
    assert "generate –, score –, learn 12.0, wait –" in out.getvalue()
    assert "reward" not in out.getvalue()


def test_the_figures_before_training_are_not_called_a_step() -> None:
    view, out, _ = log_view()
    view.update(status(row={"step": 0, "heldout_reward_mean": 1.49, "heldout_prompted_reward_mean": 1.71}))
    assert out.getvalue()[9:].strip() == "before training · held-out 1.49, with prompt 1.71"


def test_a_terminal_shows_the_phases_of_the_start_with_their_seconds() -> None:
    text = terminal_text(
        status("starting", phase="starting Ray"), status("starting", phase="loading the model"), after_s=7.0
    )
    assert "✓ starting Ray  7 s" in text
    assert "› loading the model  7 s" in text
    assert "starting · 14 s" in text


def test_the_clock_of_a_start_runs_from_the_first_second_and_never_back() -> None:
    began = RunStatus("quickstart", "starting", steps=8, phase="starting Ray")
    assert "starting · 5 s" in terminal_text(began, after_s=5.0)
    assert "running · 10 s" in terminal_text(began, status(started_s=1_004.0), after_s=5.0)


def test_a_terminal_shows_something_before_the_first_status() -> None:
    assert "starting" in terminal_text()


def test_a_terminal_of_80_columns_shows_the_whole_account_and_the_newest_held_out_figure() -> None:
    first = status(row={"step": 0, "heldout_reward_mean": 1.49, "heldout_prompted_reward_mean": None})
    last = status(
        step=2, row=row_of(2, reward_mean=1.6), phase="learning step 3", waiting_for="1 of 4 groups scored"
    )
    text = terminal_text(first, status(step=1, row=row_of(1)), last)
    assert "= pending 0 + leased 2 + scored 2" in text
    assert "+ trained 4 + withheld 2 · requeued 1" in text
    assert "training 1.60 ▁█ · held-out 1.49 (step 0)" in text
    assert "now       learning step 3" in text
    assert "batch     1 of 4 groups scored" in text
    assert max(map(len, text.splitlines())) == 80


KEYS = st.sampled_from(
    ["state", "step", "steps", "lineage", "metrics", "ledger", "workers", "waiting_for", "phase", "started_s"]
)


@settings(max_examples=25, deadline=None)
@given(
    absent=st.sets(KEYS),
    width=st.integers(30, 160),
    state=st.sampled_from(["starting", "running", "paused", "finished", "failed"]),
)
def test_no_missing_key_and_no_width_breaks_either_form(absent: set[str], width: int, state: str) -> None:
    worker = {"name": "w[0]", "state": "ready", "groups_in_flight": 1, "completion_tokens_total": 5}
    whole = status(state, step=3, row=row_of(3), phase="[/bold]", waiting_for="[red]", workers=[worker] * 9)
    partial = RunStatus.from_json({key: value for key, value in whole.to_json().items() if key not in absent})
    assert "dynalign" in terminal_text(partial, width=width)
    view, out, _ = log_view()
    view.update(partial)
    assert out.getvalue().count("\n") == 1


def test_the_line_of_a_step_shows_the_account_of_that_step() -> None:
    view, out, _ = log_view()
    stale = {"issued": 8, "trained": 0, "withheld": 0}
    view.update(status(step=1, row=row_of(1, issued=12, trained=4, withheld=2), ledger=stale))
    assert "trained 4 of 12, withheld 2" in out.getvalue()


ALARM = {
    "name": "injection", "onset_step": 2, "fired_step": 3, "action": "warn",
    "words": "share of answers that look like attacks 0.30 since step 2: read the answers",
}  # fmt: skip


def test_an_alarm_is_told_once_in_a_log_and_named_on_every_step_while_it_fires() -> None:
    view, out, _ = log_view()
    view.update(status(step=2, row=row_of(2)))
    view.update(status(step=3, row=row_of(3), alarms=[ALARM]))
    view.update(status(step=4, row=row_of(4), alarms=[ALARM]))
    lines = [line[9:] for line in out.getvalue().splitlines()]
    assert [line for line in lines if line.startswith("alarm injection: ")] == [
        f"alarm injection: {ALARM['words']}"
    ]
    assert ["alarms: injection" in line for line in lines if line.startswith("step")] == [False, True, True]


def test_a_terminal_shows_the_alarms_that_fire() -> None:
    text = terminal_text(status(step=3, row=row_of(3), alarms=[ALARM]), width=120)
    assert f"alarm injection: {ALARM['words']}"[:90] in text
    assert "alarm" not in terminal_text(status(step=3, row=row_of(3)))
