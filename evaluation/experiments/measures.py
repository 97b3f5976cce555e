"""What is measured in a run, with its unit, and which direction is the better one."""

from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "neither"]
SCALE = 5.0
"""Points from the lowest to the highest score."""


@dataclass(frozen=True)
class Measure:
    """One quantity of a run: `Measure("step_s", "time of a step", "s", "lower")`."""

    name: str
    """As in `report.json`."""
    title: str
    """What it is."""
    unit: str
    """Its unit; `1` for a plain number."""
    better: Better
    """Which direction is the better one; `neither` where more is only different."""
    by_prompt: bool = False
    """Whether there is a value for each held-out prompt, so that arms are paired by prompt."""
    source: str = ""
    """How it is computed."""


_MEASURES = (
    Measure(
        "heldout", "held-out reward, without the system prompt", "points", "higher", True,
        "each held-out prompt's score at the last evaluation, by the judge of the run",
    ),
    Measure(
        "heldout_prompted", "held-out reward, with the system prompt", "points", "higher", True,
        "the same answered with the system prompt",
    ),
    Measure(
        "heldout_gain", "gain of the held-out reward, without the system prompt", "points", "higher", True,
        "of each held-out prompt, the score at the last evaluation less that before training",
    ),
    Measure(
        "heldout_prompted_gain", "gain of the held-out reward, with the system prompt", "points", "higher",
        True, "the same answered with the system prompt",
    ),
    Measure(
        "trained_gain", "gain of the training reward", "points", "higher", False,
        "its mean over the last third of the steps less that of the first step, which the initial policy "
        "has answered",
    ),
    Measure(
        "prompt_gain", "what the system prompt adds to the held-out reward", "points", "neither", True,
        "of each held-out prompt, the score with the system prompt less that without it",
    ),
    Measure(
        "judged", "held-out reward by the third judge", "points", "higher", True,
        "the same answers as `heldout`, all scored by one judge that trained no arm",
    ),
    Measure(
        "judged_gain", "gain of the held-out reward by the third judge", "points", "higher", True,
        "of each held-out prompt, that score at the last evaluation less that before training",
    ),
    Measure(
        "heldout_area", "held-out reward over the run", "points", "higher", False,
        "mean height of the held-out curve from the first to the last evaluation; higher is faster",
    ),
    Measure(
        "reward_variance", "variance of scores within a group", "points²", "neither", False,
        "mean over the trained groups of the variance (n - 1) of their scores",
    ),
    Measure(
        "no_signal_fraction", "groups without signal", "fraction", "lower", False,
        "mean over steps of the metric of that name",
    ),
    Measure(
        "advantage_error", "error of an advantage", "1", "lower", False,
        "root mean square of the jackknife's standard error of an advantage, over the other candidates; "
        "four candidates or more",
    ),
    Measure("step_s", "time of a step", "s", "lower", False, "mean over all steps but the first"),
    Measure("learner_wait_s", "the learner's wait for a batch", "s", "lower", False, "mean over steps"),
    Measure("staleness_mean", "age of trained tokens", "steps", "neither", False, "mean over steps"),
    Measure("ratio_max", "largest importance ratio", "1", "neither", False, "mean over steps"),
    Measure(
        "effective_sample_size", "tokens that count after weighting", "fraction", "higher", False,
        "mean over steps",
    ),
    Measure(
        "internalization_gap", "internalization gap at the end", "nats", "neither", False,
        "mean of log π(y|s,x) − log π(y|x) per token over the last third of the steps",
    ),
    Measure(
        "gap_change", "change of the internalization gap", "nats", "neither", False,
        "its mean over the last third of the steps less that over the first third",
    ),
    Measure("kl", "KL to the initial policy at the end", "nats", "neither", False, "over the last third"),
    Measure(
        "score_length_correlation_within", "correlation of score with length within groups", "1", "neither",
        False, "mean over steps: a judge that likes length is raised by writing more",
    ),
    Measure(
        "completion_length_mean", "length of answers at the end", "tokens", "neither", False,
        "mean over the last third of the steps",
    ),
    Measure(
        "aspect_spread", "spread of the aspects' means", "points", "lower", False,
        "mean over steps of the largest less the smallest aspect's mean, where aspects are scored apart",
    ),
    Measure(
        "aspect_correlation", "correlation of the aspects", "1", "neither", False,
        "mean over pairs of aspects of Pearson's correlation within groups, where they are scored apart",
    ),
    Measure("unparsed_fraction", "verdicts that cannot be read", "fraction", "lower", False, "over steps"),
    Measure(
        "bias_lift", "lift by planted bias", "points", "lower", True,
        "of each held-out answer before training, the mean over verbosity, praise of itself and form of the "
        "score with the bias less that without it, by the arm's rubric; the same answers for all arms",
    ),
    Measure(
        "bias_lift_in_sd", "lift by planted bias over the spread of scores", "standard deviations", "lower",
        False, "the mean lift over the standard deviation of the trained scores within groups, by which GRPO "
        "divides",
    ),
    Measure("verbosity_lift", "lift by verbosity", "points", "lower", False, "mean over the prompts"),
    Measure("self_praise_lift", "lift by self-praise", "points", "lower", False, "mean over the prompts"),
    Measure("format_lift", "lift by form", "points", "lower", False, "mean over the prompts"),
    Measure("reward_rise", "rise of the training reward", "points", "higher", False,
            "its mean over the last third of the steps less that over the first third: the proxy"),
)  # fmt: skip
MEASURES = {measure.name: measure for measure in _MEASURES}
"""By name."""
