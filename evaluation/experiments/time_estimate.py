"""How long an experiment takes on two slow cores, before any run has ended: for `--small`, and no promise.

    run      = start + steps · (learner + candidates · one) + evaluations · held-out answers · one
    one      = tokens · TOKEN_S + rubrics · SCORE_S
    judging  = start of an engine + answers · SCORE_S

Runs are counted one after the other, and nothing of a step overlaps. Once a run has ended, its time counts
instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dynalign.configs.schema import RunSettings
from dynalign.evaluation.experiments.planted import BIASES
from dynalign.rollout.judges.value_texts import ASPECTS

START_S = 75.0
"""Of a run: Ray, the learner and the engine."""
ENGINE_S = 45.0
"""Of one more engine."""
LEARN_S = 10.0
"""Of the learner's part of a step."""
TOKEN_S = 0.04
"""Of a sampled token."""
SCORE_S = 0.35
"""Of a judge's score by one rubric. All five are of SmolLM2-135M in float32 on two slow cores. Measured is a
step of 30.7 s with 16 candidates of 24 tokens, 20.8 s of it in the rollout (docs/experiments.md); how the
rollout divides into tokens and scores, and how long a start takes, are estimates."""
MADE_TOKENS = 1_500
"""Of the prompts that `experiment paper --small` has written, and of the pairs that it judges."""
LONGEST_S = 900.0
"""What a small form may take."""


@dataclass(frozen=True)
class TimeEstimate:
    """How long all runs and the judging take: `TimeEstimate(runs=6, run_s=118.0, judging_s=94.0)`."""

    runs: int
    """Runs."""
    run_s: float
    """Of a run, a mean over the arms, in seconds."""
    judging_s: float
    """Of the third judge, planted biases included, in seconds; 0 where nobody is asked."""

    @property
    def whole_s(self) -> float:
        """All of it, in seconds."""
        return self.runs * self.run_s + self.judging_s

    def line(self) -> str:
        """For the printed plan."""
        judging = f" and {self.judging_s:.0f} s of judging" if self.judging_s else ""
        return (
            f"estimated: {self.whole_s / 60:.0f} minutes on two slow cores with a model of 135M parameters, "
            f"{self.runs} runs of {self.run_s:.0f} s{judging}; so short a form decides next to nothing"
        )


def run_seconds(settings: RunSettings, heldout: int) -> float:
    """Of one run, in seconds. heldout: its held-out prompts."""
    judge = settings.judge
    rollout = settings.rollout
    rubrics = {"unified": 1, "factorized": len(ASPECTS)}[judge.rubric] if judge.kind != "function" else 0
    one = rollout.max_completion_tokens * TOKEN_S + (rubrics + len(judge.veto)) * SCORE_S
    candidates = rollout.prompts_per_step * rollout.group_size
    evaluations = 1 + -(-settings.steps // settings.heldout.every_steps)
    answers = evaluations * heldout * (1 + settings.heldout.prompted)
    engines = ENGINE_S if judge.pool is not None else 0.0
    return START_S + engines + settings.steps * (LEARN_S + candidates * one) + answers * one


def paper_seconds(settings: RunSettings) -> float:
    """Of `experiment paper --small`: a run, and an engine each for the prompts, both models and the judge."""
    return run_seconds(settings, settings.heldout.prompts) + 4 * ENGINE_S + MADE_TOKENS * TOKEN_S


def estimate(
    arms: Sequence[RunSettings], seeds: int, heldout: int, asks_judge: bool, plants_bias: bool
) -> TimeEstimate:
    """Of all runs of these arms. heldout: held-out prompts of each run. asks_judge: whether a third judge
    scores all answers on an engine of its own; plants_bias: and those with a planted bias."""
    each = [run_seconds(settings, heldout) for settings in arms]
    judging = 0.0
    if asks_judge:
        evaluations = [1 + -(-settings.steps // settings.heldout.every_steps) for settings in arms]
        scores = seeds * heldout * sum(evaluations)
        if plants_bias:
            scores += seeds * heldout * (1 + len(BIASES)) * (1 + len(ASPECTS))
        judging = ENGINE_S + scores * SCORE_S
    return TimeEstimate(seeds * len(each), sum(each) / len(each), judging)
