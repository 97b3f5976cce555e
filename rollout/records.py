"""The records that flow from a rollout worker to the learner.

A `Group` is one draw of a prompt with G scored `Candidate`s. These classes are its form in memory; between
processes and on disk it has the form of the Arrow schema in `arrow_schema.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dynalign.configs.sections.judge import JudgeSettings

HIGHEST_SCORE = 5
"""Scores run from 0 to this."""

ParseStatus = Literal["parsed", "unparsed", "unreachable", "empty"]
"""`parsed`: a verdict. `unparsed`: the judge answered, and the answer cannot be read; no score.
`unreachable`: the call failed, so that there is no answer; no score. `empty`: the candidate has no text and
scores 0."""

OpinionRole = Literal["part", "veto", "probe", "again"]
"""`part`: the score is made of it. `veto`: it may lower the score, and never raise it. `probe`: it was taken
beside, and changes nothing. `again`: the second score is made of it, where the judge's noise was probed."""


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """Which policy version sampled a run of completion tokens.

    Example, tokens 0 to 117 of a completion under the policy after learner step 12:

        VersionSpan(version=12, start=0, end=118, lineage=1)
    """

    version: int
    """The learner step that made the policy version; 0 is the initial policy."""
    start: int
    """Index of the first token."""
    end: int
    """Index after the last token."""
    lineage: int | None = None
    """The history of the run in which that step was trained; None in a record of an earlier format."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """One score among several about a candidate: of one judge, stance, rubric and round.

    Example, the second round of a stance in a panel:

        Opinion("gpt-oss-20b", 2.0, "parsed", "veto", stance="harm", round=1, text="It hides a cost.")
    """

    judge: str
    """Who gave it: `self`, `frozen`, or the name of a model or function."""
    score: float | None
    """Points, 0 to 5; None if there is none."""
    status: ParseStatus
    """Whether the call succeeded, and its answer could be read."""
    role: OpinionRole = "part"
    """What it counts for."""
    stance: str = ""
    """In a panel, the name of the stance; empty otherwise."""
    rubric: str = ""
    """The rubric, where only one of several was applied: the aspect; empty for a whole score."""
    round: int = 0
    """In a panel, how often the stance had seen the others' reasons before."""
    position: int | None = None
    """In a ranking, the place from 0 at which the judge was shown the candidate."""
    text: str | None = None
    """The reason, or the raw answer, or why there is no score."""
    digit_probs: tuple[float, ...] | None = None
    """`expected`: the judge's distribution over the grades, which sums to 1; None for a score that is made of
    several."""
    digit_mass: float | None = None
    """`expected`: raw probability of all grades together."""
    answers: tuple[str, ...] = ()
    """`sampled` and rankings: the raw answers, one per sample, in their order."""


def spoken(answers: Sequence[str], opinions: Sequence[Opinion]) -> str | None:
    """The raw answers that a score is made of, one per line: its own, or those of the rubrics or rankings
    among its opinions; None without any."""
    parts = [each for each in opinions if each.role == "part" and not each.stance]
    apart = [each for each in parts if each.rubric or each.position is not None]
    found = answers or [answer for each in apart for answer in each.answers]
    return "\n".join(found) if found else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One candidate's score and everything that led to it.

    Example, a verdict of the `expected` judge that was scored a second time:

        Verdict(
            score=3.4,
            status="parsed",
            digit_probs_6=(0.0, 0.0, 0.1, 0.4, 0.5, 0.0),
            digit_mass=0.93,
            score_again=3.5,
        )
    """

    score: float | None
    """Points, 0 to 5; None if unparsed or unreachable."""
    status: ParseStatus
    """Whether the judge answered, and its answer could be read."""
    digit_probs_6: tuple[float, ...] | None = None
    """`expected` with one rubric: the judge's distribution q over the grades, which sums to 1. Six of them,
    0 to 5, unless the settings name another scale."""
    digit_mass: float | None = None
    """`expected`: raw probability that the judge answers with a digit at all; the least over the rubrics."""
    text: str | None = None
    """`sampled`: the judge's raw answers, one per line. Otherwise why there is no score."""
    score_again: float | None = None
    """The second score in points, where the judge's noise was probed."""
    opinions: tuple[Opinion, ...] = ()
    """The scores that this one is made of, those of the probes, and what `score_again` is made of. Empty
    where one judge gave one score."""
    answers: tuple[str, ...] = ()
    """`sampled` with one rubric: the raw answers apart, one per sample; several rubrics have them in their
    opinions. Empty in a record of an earlier format."""


@dataclass(frozen=True, slots=True)
class ScoringRules:
    """How answers became scores: the settings of section `judge` by which a group was scored.

    Example:

        ScoringRules("self", "expected", "mean", "mean", lowest_grade=0, highest_grade=5, min_digit_mass=0.1)
    """

    kind: str
    """`judge.kind`."""
    scorer: str
    """`judge.scorer`."""
    aggregate: str
    """`judge.aggregate`: how the scores of a factorized rubric became one."""
    settle: str
    """`judge.settle`: how the scores of several models or stances became one."""
    lowest_grade: int
    """The scale of the texts begins here."""
    highest_grade: int
    """And ends here."""
    min_digit_mass: float
    """The raw probability of the grades below which an `expected` verdict is unparsed."""

    @staticmethod
    def of(judge: JudgeSettings) -> "ScoringRules":
        """Those of a run's settings."""
        return ScoringRules(
            judge.kind,
            judge.scorer,
            judge.aggregate,
            judge.settle,
            judge.lowest_grade,
            judge.highest_grade,
            judge.min_digit_mass,
        )

    @property
    def grades(self) -> range:
        """The grades of the scale, ascending."""
        return range(self.lowest_grade, self.highest_grade + 1)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One completion of a group.

    Example, a completion of three tokens whose gap was probed:

        Candidate(
            token_ids_T=(9906, 11, 2),
            sampling_logprobs_T=(-0.21, -1.4, -0.02),
            text="Hello,",
            finish_reason="stop",
            spans=(VersionSpan(12, 0, 3),),
            verdict=Verdict(1.2, "parsed"),
            gap_sum_nats=0.41,
            gap_tokens=3,
        )
    """

    token_ids_T: tuple[int, ...]
    """Token ids as the engine sampled them, with the end-of-turn token if the sequence ended by itself."""
    sampling_logprobs_T: tuple[float, ...]
    """Log-probability of each token when it was sampled (a), in nats at temperature 1: log π(y|s,x)."""
    text: str
    """The answer as a reader and the judge see it: no thinking, no special tokens."""
    finish_reason: Literal["stop", "length"]
    """`stop`: the sequence ended by itself. `length`: it was cut off at the limit."""
    spans: tuple[VersionSpan, ...]
    """The policy versions of the tokens, in order, without holes."""
    verdict: Verdict
    """The judge's verdict on `text`."""
    behaviour_logprobs_T: tuple[float, ...] | None = None
    """Log-probability of each token in the context in which the learner trains (b), in nats: log π(y|x).

    By the engine, at the version that scored. For every candidate with `rollout.record_behaviour`, else for
    those of `rollout.gap_probes` and `rollout.mismatch_fraction`; None for the others."""
    gap_sum_nats: float | None = None
    """Sum over the tokens of log π(y|s,x) - log π(y|x), at one version by one engine; None if not probed."""
    gap_tokens: int | None = None
    """Number of tokens in that sum."""


@dataclass(frozen=True, slots=True)
class Group:
    """One draw of a prompt with its candidates, all scored under one policy version.

    Example, a group of one candidate (real ones have `rollout.group_size`):

        Group(
            run="quickstart",
            lineage=1,
            group_id=97,
            attempt=1,
            epoch=0,
            prompt_id="governance-004",
            prompt="How can two villages share a well?",
            learning_context_ids=(1, 882, 2),
            candidates_G=(
                Candidate((9, 2), (-0.2, -0.1), "Hi", "stop", (VersionSpan(12, 0, 2),), Verdict(1, "parsed")),
            ),
            judge="self",
            judge_version=12,
            definition_hash="3f1c08a2b6d94e57",
            rubric_hash="a90d6b1e2c3f4875",
            worker="rollout-3",
            leased_s=1764288000.0,
            generated_s=1764288009.5,
            scored_s=1764288010.7,
        )
    """

    run: str
    """Name of the run."""
    lineage: int
    """Which history of the run, from 1: a resume, or a learner that is replaced, begins another one."""
    group_id: int
    """The draw's number since the start of the run, from 0; with the lineage it names the group."""
    attempt: int
    """Number of the lease under which the group was made, from 1."""
    epoch: int
    """Complete passes over the prompts before this draw."""
    prompt_id: str
    """Id of the prompt in its source."""
    prompt: str
    """The user's text."""
    learning_context_ids: tuple[int, ...]
    """Token ids of the context in which the learner trains: the prompt without the system prompt, and with
    it where `algorithm.system_prompt` is `kept`."""
    candidates_G: tuple[Candidate, ...]
    """The G completions."""
    judge: str
    """Who scored: `self`, `frozen`, the names of the models, the name of the function, or the panel."""
    judge_version: int
    """The policy version, as a learner step, under which all candidates were scored."""
    definition_hash: str
    """16 hexadecimal characters over the value definition and the system prompt."""
    rubric_hash: str
    """16 hexadecimal characters over the rubrics and the judge's template."""
    worker: str
    """Name of the rollout worker."""
    leased_s: float
    """When the lease was granted, in Unix seconds."""
    generated_s: float
    """When the last candidate was complete, in Unix seconds."""
    scored_s: float
    """When the last verdict was there, in Unix seconds."""
    noise_std: float | None = None
    """The worker's estimate of the judge's own noise in points, as of this group; None before it has one."""
    scoring: ScoringRules | None = None
    """How it was scored; None in a record of an earlier format."""
    model_hash: str = ""
    """Hash of the initial model's content (`run_folder/content.py`); empty in a record of an earlier
    format."""
    withheld_reason: str | None = None
    """Why the group cannot be trained on: `empty`, `judge_unreachable`, `unparsed` or `low_signal`; None if
    it can."""

    @property
    def scores_G(self) -> tuple[float | None, ...]:
        """The candidates' scores in points."""
        return tuple(candidate.verdict.score for candidate in self.candidates_G)

    @property
    def version_min(self) -> int:
        """The oldest policy version that sampled a token; the judge's version if no token was sampled."""
        return min((span.version for c in self.candidates_G for span in c.spans), default=self.judge_version)

    @property
    def version_max(self) -> int:
        """The newest policy version that sampled a token; the judge's version if no token was sampled."""
        return max((span.version for c in self.candidates_G for span in c.spans), default=self.judge_version)
