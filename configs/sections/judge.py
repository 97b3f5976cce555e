"""Section `judge`: who scores, and how."""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Fraction, Section
from dynalign.configs.sections.pool import PoolSettings


class JudgeSettings(Section):
    """Who scores the candidates, with which rubric, and how verdicts become scores.

    Example: `{kind: self, scorer: sampled, rubric: factorized, aggregate: min, samples: 4}`.
    """

    kind: Literal["self", "function"] = "self"
    """`self`: the current policy reads the rubric and scores; `function`: a Python callable (verifiable
    rewards)."""
    function: str | None = None
    """`package.module:callable` for `kind: function`; called as f(prompt, completion) -> float in 0..5."""
    scorer: Literal["expected", "sampled"] = "expected"
    """`expected`: one constrained token, score = sum of k q(k) over the six digits; `sampled`: a rationale,
    then an integer."""
    rubric: Literal["unified", "factorized"] = "unified"
    """`unified`: one score for the whole value; `factorized`: one score for each of its four aspects."""
    aggregate: Literal["mean", "min", "geometric_mean"] = "mean"
    """How the scores of a factorized rubric become one."""
    samples: Annotated[int, Field(ge=1, le=16)] = 1
    """Verdicts sampled and averaged per candidate; only with `scorer: sampled`."""
    min_digit_mass: Fraction = 0.1
    """Least raw probability of the six digits together. Below it an `expected` verdict counts as unparsed,
    because the judge does not answer the question."""
    max_rationale_tokens: Annotated[int, Field(ge=16, le=8192)] = 96
    """Most tokens of a sampled verdict, rationale and score together."""
    noise_fraction: Fraction = 0.0625
    """Share of candidates that are scored a second time, in another batch and without cached key-values, to
    measure the noise of the judge. A second score costs one whole prefill: about a second on a CPU core."""
    values: str | None = None
    """Folder with a value definition and rubrics of your own; null: the Collective Agency texts shipped
    with dynalign."""
    pool: PoolSettings | None = None
    """Engines with fixed weights that score, beside the engines of the rollout; null: none."""
