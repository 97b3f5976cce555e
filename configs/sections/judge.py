"""Section `judge`: who scores, and how."""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Fraction, Section


class JudgeSettings(Section):
    """Who scores, and how."""

    kind: Literal["self", "function"] = "self"
    """`self`: the live policy reads the rubric and scores; `function`: a Python callable (verifiable rewards)."""
    function: str | None = None
    """`package.module:callable` for `kind: function`; called as f(prompt, completion) -> float in 0..5."""
    scorer: Literal["expected", "sampled"] = "expected"
    """`expected`: one constrained token, score = sum of k q(k) over the six digits; `sampled`: a rationale, then an integer."""
    rubric: Literal["unified", "factorized"] = "unified"
    """One holistic score, or one score for each of the four aspects."""
    aggregate: Literal["mean", "min", "geometric_mean"] = "mean"
    """How factorized scores become one."""
    samples: Annotated[int, Field(ge=1, le=16)] = 1
    """Sampled verdicts averaged per candidate; only `scorer: sampled`."""
    min_digit_mass: Fraction = 0.1
    """Raw probability of the six digits below which an `expected` verdict is unparsed: the judge did not understand."""
    max_rationale_tokens: Annotated[int, Field(ge=16, le=8192)] = 96
    """Tokens for a sampled verdict, rationale and score together."""
    noise_fraction: Fraction = 0.0625
    """Share of candidates that are scored again, in another batch and without cached key-values, to measure the judge's own noise.
    A second score costs one whole prefill: about a second on a CPU core."""
    values: str | None = None
    """Folder with your own value definition and rubrics; default: the shipped Collective Agency texts."""
