"""Section `judge`: who scores, and how."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Fraction, Seconds, Section
from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.configs.sections.pool import PoolSettings

SELF = "self"
"""The name of the live policy among those who are asked."""
FROZEN = "frozen"
"""The name of the initial policy among those who are asked."""
POOL = "pool"
"""The name of the other model that `judge.pool` holds."""

Attempts = Annotated[int, Field(ge=0, le=5)]


def stance_parts(stance: str) -> tuple[str, str]:
    """(name, whom it asks) of an entry of `judge.stances`: `harm:gpt`, or `harm`, which asks the policy."""
    name, _, whom = stance.partition(":")
    return name, whom or SELF


class JudgeSettings(Section):
    """Who scores the candidates, with which rubric, and how verdicts become scores.

    Example: `{kind: self, scorer: sampled, rubric: factorized, aggregate: min, samples: 4}`.
    """

    kind: Literal["self", "frozen", "external", "function", "panel", "ranked"] = "self"
    """`self`: the current policy reads the rubric and scores; `frozen`: the initial policy does; `external`:
    other models do (`models`); `function`: a Python callable (verifiable rewards); `panel`: several stances
    score, read each other's reasons and score again; `ranked`: one call puts the whole group in order."""
    function: str | None = None
    """`package.module:callable` for `kind: function`, plain or async: f(prompt, completion) -> float in 0..5,
    or f(prompt, completions) -> a list of them, which sees the whole group. The second parameter's name
    decides."""
    function_s: Seconds = 60.0
    """Longest that one call of the function may take."""
    models: tuple[str, ...] = ()
    """`external`: the endpoints or pools that score. `ranked`: the one that ranks instead of the policy."""
    stances: tuple[str, ...] = ()
    """`panel`: its stances, each `<name>` or `<name>:<whom it asks>`. The text is `stance_<name>.txt` in the
    folder of `values`; whom: `self` (default), `frozen`, or an endpoint or pool."""
    rounds: Annotated[int, Field(ge=0, le=4)] = 1
    """`panel`: how often a stance may revise its score after it has read the others' reasons."""
    settle: Literal["mean", "trimmed_mean"] = "mean"
    """How the scores of several models or stances become one; `trimmed_mean` leaves out the highest and the
    lowest."""
    veto: tuple[str, ...] = ()
    """Who may lower a score and never raise it. `panel`: names of its stances; otherwise `self`, `frozen`, or
    endpoints or pools, each of which scores every candidate as well."""
    probes: tuple[str, ...] = ()
    """Who scores a sample of the groups beside the judge, to be compared with it: `self`, `frozen`, or
    endpoints or pools. A probe changes no score."""
    probe_factorized: bool = False
    """Also score the sample by each aspect of the value, for `rubric: unified`."""
    probe_fraction: Fraction = 0.0625
    """Share of the groups that `probes` and `probe_factorized` score."""
    consistency_weight: bool = False
    """Multiply a group's advantages by (τ-b + 1) / 2, with Kendall's τ-b between the scores of the live
    policy and those of the initial one (after CREAM, arXiv 2410.12735); for `kind: self`, with `frozen` as a
    probe of every group or as a veto. An undefined τ-b counts as 0."""
    scorer: Literal["expected", "sampled"] = "expected"
    """`expected`: one constrained token, score = sum of k q(k) over the grades; `sampled`: a rationale, then
    an integer."""
    rubric: Literal["unified", "factorized"] = "unified"
    """`unified`: one score for the whole value; `factorized`: one score for each of its aspects, which are
    the files `rubric_<aspect>.txt` of the folder of `values`."""
    aggregate: Literal["mean", "min", "geometric_mean"] = "mean"
    """How the scores of a factorized rubric become one."""
    samples: Annotated[int, Field(ge=1, le=16)] = 1
    """Verdicts sampled and averaged per candidate; only with `scorer: sampled`."""
    lowest_grade: Annotated[int, Field(ge=0, le=99)] = 0
    """Lowest grade of the scale that the texts of `values` use."""
    highest_grade: Annotated[int, Field(ge=1, le=100)] = 5
    """Highest grade of that scale. A grade g becomes 5 (g - lowest) / (highest - lowest) points."""
    min_digit_mass: Fraction = 0.1
    """Least raw probability of the grades together. Below it an `expected` verdict counts as unparsed,
    because the judge does not answer the question."""
    max_rationale_tokens: Annotated[int, Field(ge=16, le=8192)] = 96
    """Most tokens of a sampled verdict, rationale and score together."""
    failed_again: Attempts = 1
    """How often a question to a model is repeated whose call failed, after the endpoint's own retries."""
    unparsed_again: Attempts = 0
    """How often a question is asked anew, with another seed, whose answer could not be read."""
    noise_fraction: Fraction = 0.0625
    """Share of candidates that are scored a second time, in another batch and without cached key-values, to
    measure the noise of the judge. A second score costs one whole prefill: about a second on a CPU core."""
    values: str | None = None
    """Folder with a value definition and rubrics of your own; null: the Collective Agency texts shipped
    with dynalign."""
    pool: PoolSettings | None = None
    """Engines with fixed weights that score, beside the engines of the rollout; null: none."""
    endpoints: Mapping[str, EndpointSettings] = {}
    """Models that are served elsewhere, each under a name of yours, by which `models`, `stances`, `veto` and
    `probes` ask it."""

    @property
    def scorers(self) -> tuple[str, ...]:
        """Who is asked for the score itself, each once: `self`, `frozen`, or names of endpoints and pools."""
        match self.kind:
            case "function":
                return ()
            case "panel":
                return tuple(dict.fromkeys(stance_parts(stance)[1] for stance in self.stances))
            case "external":
                return self.models
            case "ranked":
                return self.models or (SELF,)
            case _:
                return (self.kind,)

    @property
    def asked(self) -> tuple[str, ...]:
        """Everybody who is asked, those of vetoes and probes included, each once."""
        vetoes = () if self.kind == "panel" else self.veto
        return tuple(dict.fromkeys((*self.scorers, *vetoes, *self.probes)))

    @property
    def grades(self) -> tuple[int, ...]:
        """The grades of the scale, ascending."""
        return tuple(range(self.lowest_grade, self.highest_grade + 1))
