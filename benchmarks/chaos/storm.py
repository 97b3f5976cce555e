"""Strikes a run by a plan, waits until everything serves again, and says how long that took.

    wait until the run serves
    each round: pause ─► strike, once or twice ─► wait until everything serves again ─► wake what hung
    stop the run ─► train a few more steps, to its end

The next look notices a driver that has ended, and its last lines are the cause. The run stands behind a
protocol: `real_run.py` implements it with Ray and processes.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from dynalign.benchmarks.chaos.audit import Audit
from dynalign.benchmarks.chaos.plan import Round, StormPlan, Strike, Victim
from dynalign.configs.errors import RunFailed

LOOK_S = 0.3
"""Seconds between two looks at the run."""

MORE_STEPS = 3
"""Steps that the run is trained further after it was stopped, so that it ends as a finished one."""

SHOWN_MISTAKES = 20
"""More are counted: the run folder is kept."""


@dataclass(frozen=True)
class Look:
    """What can be seen of the run at one moment.

    Example: ``Look(driver_ended=None, serves=True, step=41, lineage=2, deaths=Counter(worker=3), missing=(),
    last_lines="")``
    """

    driver_ended: int | None
    """Exit status of the driver; None while it runs."""
    serves: bool
    """The status is fresh: the run trains, the ledger leases, and all workers serve."""
    step: int
    """The step committed last, by the status; 0 before there is one."""
    lineage: int
    """Lineage of the status; 0 before there is one."""
    deaths: Counter[Victim]
    """How many deaths of each kind of actor the run's events name."""
    missing: tuple[Victim, ...]
    """Kinds of actors of which fewer processes work than there should be. What hangs does not work."""
    last_lines: str
    """The end of the driver's log, in one line."""


@dataclass(frozen=True)
class Recovery:
    """What one strike hit, and when everything served again.

    Example: ``Recovery(strike=Strike("ledger", "dies", 0.0, 0.3), hit="ledger 4711", lost_s=7.1, step=88)``
    """

    strike: Strike
    """The strike of the plan."""
    hit: str
    """The processes that were hit: kind and process id."""
    lost_s: float
    """Seconds from this strike until everything served again."""
    step: int
    """Step at which it served again."""


class StruckRun(Protocol):
    """The run that a storm strikes."""

    recovery_s: float
    """Longest time from a strike until everything serves again, and for its start and its end."""

    def look(self) -> Look: ...

    def strike(self, strike: Strike) -> tuple[str, frozenset[Victim]] | None:
        """The processes that were hit, in words, and the kinds among them; None while there is no victim.

        A driver that was struck is started again at once.
        """
        ...

    def wake(self) -> int:
        """Let the processes go on that hang and were replaced; returns how many."""
        ...

    def stop(self) -> None:
        """Ask the run to stop after the present step."""
        ...

    def train_further(self, steps: int) -> None:
        """Start the driver of the stopped run again, for `steps` more steps."""
        ...

    def wait(self, seconds: float) -> None: ...

    def now_s(self) -> float:
        """Seconds on a clock that only goes forwards."""
        ...


def carry_out(run: StruckRun, plan: StormPlan, say: Callable[[str], None]) -> list[Recovery]:
    """Carry the plan out. Raises RunFailed when the driver ends, or a wait takes longer than `recovery_s`."""
    _until(run, "the run to serve", lambda look: look.serves and not look.missing)
    recoveries: list[Recovery] = []
    for round_ in plan.rounds:
        for recovery in _strike_and_recover(run, round_):
            recoveries.append(recovery)
            say(f"kill {len(recoveries):3} of {plan.kills}  {_line(recovery, round_)}")
        if woken := run.wake():
            say(f"         {woken} replaced processes that hung go on")
    return recoveries


def finish(run: StruckRun) -> None:
    """Stop the run, and train it to its end. Raises RunFailed unless the driver ends well both times."""
    run.stop()
    _ended_well(run, "the run to stop")
    run.train_further(MORE_STEPS)
    _ended_well(run, f"the run to train {MORE_STEPS} more steps and end")


def _strike_and_recover(run: StruckRun, round_: Round) -> list[Recovery]:
    run.wait(round_.pause_s)
    before = _look(run, "the next kill")
    struck: list[tuple[Strike, str, float]] = []
    kinds: set[Victim] = set()
    for strike in round_.strikes:
        run.wait(strike.after_s)
        words, hit = _hit(run, strike)
        struck.append((strike, words, run.now_s()))
        kinds |= hit
    what = f"everything to serve again after {' and '.join(words for _, words, _ in struck)} {_how(round_)}"
    again = _until(run, what, lambda look: _recovered(before, look, kinds))
    # One more step shows that what was replaced works; the status alone may be a second old.
    _until(run, what, lambda look: _recovered(before, look, kinds) and look.step != again.step)
    now_s = run.now_s()
    return [Recovery(strike, words, now_s - at_s, again.step) for strike, words, at_s in struck]


def _hit(run: StruckRun, strike: Strike) -> tuple[str, frozenset[Victim]]:
    """Strike as soon as there is a victim: after a strike before it, a successor may still be starting."""
    found: list[tuple[str, frozenset[Victim]]] = []

    def there(look: Look) -> bool:
        hit = run.strike(strike)
        if hit is not None:
            found.append(hit)
        return hit is not None

    _until(run, f"a {strike.victim} to be struck", there)
    return found[0]


ASKED: tuple[Victim, ...] = ("worker", "engine", "gateway")
"""What stays through a new lineage."""


def _recovered(before: Look, look: Look, kinds: set[Victim]) -> bool:
    """Everything serves, and the run has noticed each death.

    A new lineage replaces all but workers, engines and the gateway. A new driver replaces these, too, without
    an event.
    """
    new_lineage = look.lineage > before.lineage
    noticed = all(
        look.deaths[kind] > before.deaths[kind] or (new_lineage and (kind not in ASKED or "driver" in kinds))
        for kind in kinds
    )
    return noticed and look.serves and not look.missing


def _until(run: StruckRun, what: str, there: Callable[[Look], bool]) -> Look:
    end_s = run.now_s() + run.recovery_s
    while True:
        look = _look(run, what)
        if there(look):
            return look
        if run.now_s() > end_s:
            missing = ", ".join(look.missing) or "nothing"
            raise RunFailed(
                f"waited {run.recovery_s:g} s for {what}; at step {look.step} of lineage {look.lineage}, "
                f"missing: {missing}; the driver's last lines: {look.last_lines}"
            )
        run.wait(LOOK_S)


def _look(run: StruckRun, what: str) -> Look:
    look = run.look()
    if look.driver_ended is not None:
        raise RunFailed(_end(look, what))
    return look


def _ended_well(run: StruckRun, what: str) -> None:
    end_s = run.now_s() + run.recovery_s
    while (look := run.look()).driver_ended is None:
        if run.now_s() > end_s:
            raise RunFailed(
                f"waited {run.recovery_s:g} s for {what}; the driver's last lines: {look.last_lines}"
            )
        run.wait(LOOK_S)
    if look.driver_ended != 0:
        raise RunFailed(_end(look, what))


def _end(look: Look, what: str) -> str:
    ended = f"the driver ended with exit status {look.driver_ended}"
    return f"{ended}, in the wait for {what}; its last lines: {look.last_lines}"


def _how(round_: Round) -> str:
    return f"({' and '.join(strike.how for strike in round_.strikes)}, {round_.shape})"


def _line(recovery: Recovery, round_: Round) -> str:
    what = f"{recovery.strike.victim} {recovery.strike.how}"
    again = f"everything serves again after {recovery.lost_s:5.1f} s, step {recovery.step}"
    return f"{what:17} {round_.shape:8} {again} ({recovery.hit})"


def account(recoveries: Sequence[Recovery], found: Audit) -> list[str]:
    """The result in Markdown: how long each kind of kill took, the sums, and what is wrong."""
    lost_s: dict[str, list[float]] = {}
    for recovery in recoveries:
        lost_s.setdefault(f"{recovery.strike.victim} {recovery.strike.how}", []).append(recovery.lost_s)
    lines = [
        "| what | times | seconds until everything serves again: median | longest |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {what} | {len(times)} | {median(times):.1f} | {max(times):.1f} |"
        for what, times in sorted(lost_s.items())
    ]
    sums = f"issued {found.issued} = trained {found.trained} + withheld {found.withheld}"
    beside = f"requeued {found.requeued}, late {found.late}, rolled back {found.rolled_back}"
    lines += ["", f"{sums}; {beside}; {found.steps} steps, {found.lineages} lineages"]
    lines.append(f"withheld because the judge could not be reached: {found.unreachable}")
    lines += [f"WRONG: {mistake}" for mistake in found.mistakes[:SHOWN_MISTAKES]]
    if (more := len(found.mistakes) - SHOWN_MISTAKES) > 0:
        lines.append(f"WRONG: {more} more")
    return lines if found.mistakes else [*lines, "nothing was lost, nothing was trained twice"]
