"""A storm's plan is a function of its seed, and its execution waits for what it should, and for no longer."""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dynalign.benchmarks.chaos.audit import Audit
from dynalign.benchmarks.chaos.plan import FORMS, SHAPES, Round, StormPlan, Strike, Victim, storm_plan
from dynalign.benchmarks.chaos.real_run import ENGINE_SETTINGS, MAX_STALENESS, JudgeEngine, RealRun
from dynalign.benchmarks.chaos.rewards import POISON_WORD, SILENT_WORD, storm_reward
from dynalign.benchmarks.chaos.storm import MORE_STEPS, Look, account, carry_out, finish
from dynalign.configs.errors import RunFailed
from dynalign.configs.load import load_run
from dynalign.rollout.prompts import load_prompts

# ---- the plan


@pytest.mark.parametrize("kills", [1, 2, 3, 12, 50])
def test_a_plan_has_as_many_strikes_as_were_asked_for_and_the_seed_decides_them(kills: int) -> None:
    plan = storm_plan(kills, seed=3)
    assert plan.kills == kills
    assert plan == storm_plan(kills, seed=3)
    assert plan != storm_plan(kills, seed=4)


@pytest.mark.parametrize("seed", range(20))
def test_a_storm_strikes_everything_in_every_way(seed: int) -> None:
    rounds = storm_plan(24, seed).rounds
    assert {(strike.victim, strike.how) for round_ in rounds for strike in round_.strikes} == {*FORMS}
    assert {round_.shape for round_ in rounds} == {*SHAPES}


def test_some_seeds_have_a_mirror_and_some_two_learner_ranks() -> None:
    plans = [storm_plan(1, seed) for seed in range(20)]
    assert {plan.mirror for plan in plans} == {False, True}
    assert {plan.ranks for plan in plans} == {1, 2}


@pytest.mark.parametrize("seed", range(20))
def test_the_strikes_of_a_round_are_as_its_shape_says(seed: int) -> None:
    for round_ in storm_plan(50, seed).rounds:
        first, *more = round_.strikes
        assert (first.after_s, len(more)) == (0.0, 0 if round_.shape == "alone" else 1)
        for second in more:
            assert (second.after_s == 0.0) == (round_.shape == "together")
            same = second.victim == first.victim
            two_workers = round_.shape == "together" and first.victim == "worker"
            assert two_workers or same == (round_.shape == "again")


@pytest.mark.parametrize("engine", ENGINE_SETTINGS)
@pytest.mark.parametrize("mirror", [False, True])
def test_the_settings_of_the_run_are_valid_and_keep_what_the_audit_reads(
    tmp_path: Path, mirror: bool, engine: JudgeEngine
) -> None:
    plan = replace(storm_plan(50, seed=3), ranks=2, mirror=mirror)
    run = RealRun(tmp_path, tmp_path / "model", plan, engine)
    settings = load_run("quickstart", run.settings()).settings
    assert settings.experience.keep_steps is None
    assert settings.judge.pool is not None
    assert (settings.judge.pool.engines, settings.judge.pool.engine) == (1, engine)
    assert settings.judge.veto == ("frozen",)
    assert settings.algorithm.max_staleness == MAX_STALENESS
    assert settings.checkpoint.mirror == (f"file://{tmp_path}/mirror" if mirror else None)
    prompts = load_prompts(settings.prompts.source)
    assert sum(POISON_WORD in prompt.prompt for prompt in prompts.train) == 1
    assert any(SILENT_WORD in prompt.prompt for prompt in prompts.train)
    assert len(prompts.heldout) == settings.heldout.prompts


# ---- its execution

SERVES = Look(
    driver_ended=None, serves=True, step=10, lineage=1, deaths=Counter(), missing=(), last_lines="all is well"
)


@dataclass
class FakeRun:
    """A run that shows one look after another, the last one for ever, and a clock that waits move."""

    looks: list[Look]
    found: list[tuple[str, frozenset[Victim]] | None] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    clock_s: float = 0.0
    recovery_s: float = 240.0

    def look(self) -> Look:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def strike(self, strike: Strike) -> tuple[str, frozenset[Victim]] | None:
        self.done.append(f"strike {strike.victim}")
        return self.found.pop(0) if self.found else (f"{strike.victim} 7", frozenset({strike.victim}))

    def wake(self) -> int:
        return 1

    def stop(self) -> None:
        self.done.append("stop")

    def train_further(self, steps: int) -> None:
        self.done.append(f"train {steps}")

    def wait(self, seconds: float) -> None:
        self.clock_s += seconds

    def now_s(self) -> float:
        return self.clock_s


def died(look: Look, *kinds: Victim) -> Look:
    return replace(look, deaths=look.deaths + Counter(kinds))


def one(victim: Victim, *more: Strike) -> StormPlan:
    shape = "during" if more else "alone"
    return StormPlan(1, False, (Round(shape, 1.0, (Strike(victim, "dies", 0.0, 0.5), *more)),))


def test_a_strike_is_over_when_everything_serves_again_and_has_made_a_step() -> None:
    away = replace(died(SERVES, "ledger"), serves=False, missing=("ledger",))
    back = died(SERVES, "ledger")
    said: list[str] = []
    run = FakeRun([SERVES] * 3 + [SERVES, away, away, back, back, replace(back, step=11)])
    (recovery,) = carry_out(run, one("ledger"), said.append)
    assert run.looks[0].step == 11
    assert recovery.lost_s == pytest.approx(4 * 0.3)
    assert said == [
        "kill   1 of 1  ledger dies       alone    everything serves again after   1.2 s, step 10 (ledger 7)",
        "         1 replaced processes that hung go on",
    ]


def test_a_death_that_the_run_has_not_noticed_is_no_recovery() -> None:
    run = FakeRun([SERVES, SERVES, SERVES, *(replace(SERVES, step=step) for step in range(10, 20))])
    said = r"waited 240 s for everything to serve again after worker 7 \(dies, alone\)"
    with pytest.raises(RunFailed, match=said):
        carry_out(run, one("worker"), lambda line: None)
    assert run.clock_s > FakeRun.recovery_s


@pytest.mark.parametrize(
    ("victim", "is_enough"), [("ledger", True), ("coordinator", True), ("driver", True), ("worker", False)]
)
def test_a_new_lineage_replaces_all_but_the_workers(victim: Victim, is_enough: bool) -> None:
    run = FakeRun([SERVES] * 3 + [replace(SERVES, lineage=2), replace(SERVES, lineage=2, step=5)])
    if is_enough:
        (recovery,) = carry_out(run, one(victim), lambda line: None)
        assert recovery.step == 10
    else:
        with pytest.raises(RunFailed):
            carry_out(run, one(victim), lambda line: None)


def test_two_strikes_are_recovered_from_together_and_each_has_its_line() -> None:
    both = died(SERVES, "ledger", "worker")
    run = FakeRun([SERVES] * 4 + [died(SERVES, "ledger"), both, replace(both, step=12)])
    said: list[str] = []
    first, second = carry_out(run, one("ledger", Strike("worker", "hangs", 2.0, 0.1)), said.append)
    assert run.done == ["strike ledger", "strike worker"]
    assert first.lost_s - second.lost_s == pytest.approx(2.0)
    assert [line[:33].split() for line in said[:2]] == [
        ["kill", "1", "of", "2", "ledger", "dies"],
        ["kill", "2", "of", "2", "worker", "hangs"],
    ]


def test_a_strike_waits_for_its_victim_to_be_there() -> None:
    after = died(SERVES, "learner")
    run = FakeRun([SERVES] * 5 + [after, replace(after, step=11)], found=[None, None])
    carry_out(run, one("learner"), lambda line: None)
    assert run.done == ["strike learner"] * 3


@pytest.mark.parametrize("looks_before", range(4))
def test_a_driver_that_has_ended_is_noticed_at_once_with_its_last_lines(looks_before: int) -> None:
    ended = replace(SERVES, driver_ended=1, serves=False, last_lines="MemoryError | in step 11")
    run = FakeRun([SERVES] * looks_before + [ended])
    with pytest.raises(RunFailed, match=r"the driver ended with exit status 1, .*MemoryError \| in step 11"):
        carry_out(run, one("ledger"), lambda line: None)
    assert run.clock_s < 3.0


def test_a_run_is_stopped_and_trained_to_its_end() -> None:
    run = FakeRun([SERVES, SERVES, replace(SERVES, driver_ended=0)])
    finish(run)
    assert run.done == ["stop", f"train {MORE_STEPS}"]


@pytest.mark.parametrize(
    ("look", "said"),
    [
        (
            replace(SERVES, driver_ended=1),
            "ended with exit status 1, in the wait for the run to stop; its last lines: all",
        ),
        (SERVES, "waited 240 s for the run to stop; the driver's last lines: all is well"),
    ],
)
def test_a_run_that_does_not_end_well_is_named(look: Look, said: str) -> None:
    with pytest.raises(RunFailed, match=said):
        finish(FakeRun([look]))


# ---- the account


def test_the_account_ends_with_its_verdict() -> None:
    back = died(SERVES, "ledger")
    run = FakeRun([SERVES] * 4 + [back, replace(back, step=11)])
    recoveries = carry_out(run, one("ledger"), lambda line: None)
    well = Audit(
        issued=8, trained=6, withheld=2, requeued=1, late=0, rolled_back=2, lineages=2, steps=3, mistakes=()
    )
    assert account(recoveries, well)[2:] == [
        "| ledger dies | 1 | 0.3 | 0.3 |",
        "",
        "issued 8 = trained 6 + withheld 2; requeued 1, late 0, rolled back 2; 3 steps, 2 lineages",
        "withheld because the judge could not be reached: 0",
        "nothing was lost, nothing was trained twice",
    ]
    wrong = replace(well, mistakes=tuple(f"group {number} is lost" for number in range(22)))
    assert account(recoveries, wrong)[-2:] == ["WRONG: group 19 is lost", "WRONG: 2 more"]


def test_the_reward_gives_signal_unless_the_prompt_says_otherwise() -> None:
    answers = [str(number) for number in range(50)]
    assert len({storm_reward("a rope", answer) for answer in answers}) > 20
    assert all(0.0 <= storm_reward("a rope", answer) <= 5.0 for answer in answers)
    assert {storm_reward(f"on {SILENT_WORD}", answer) for answer in answers} == {0.0}
    assert POISON_WORD not in "a rope"
