"""The records that flow from a rollout worker to the learner: one `Group` of G scored `Candidate`s per draw of a prompt.

The wire form of a group is the Arrow schema in `arrow_schema.py`; these classes are its in-memory form.
"""

from dataclasses import dataclass
from typing import Literal

HIGHEST_SCORE = 5
"""Scores run from 0 to this."""

ParseStatus = Literal["parsed", "unparsed", "empty"]
"""`empty`: nothing was answered, scored 0. `unparsed`: the verdict could not be read; the score is None."""


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """Completion tokens [start, end) were sampled by policy version `version` (the learner step that made it)."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One candidate's score and how it came about.

    score: 0..5, None if unparsed. digit_probs_6: q(k) of the `expected` scorer. digit_mass: raw probability of the six digits.
    text: the judge's raw answer (`sampled`). score_again: the second score, where noise was probed.
    """

    score: float | None
    status: ParseStatus
    digit_probs_6: tuple[float, ...] | None = None
    digit_mass: float | None = None
    text: str | None = None
    score_again: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One completion: token ids as the engine made them (with the end-of-turn token if it stopped by itself), one sampling
    log-probability (nats, natural temperature 1) per token, the optional log-probabilities of the same tokens in the learning
    context, the spans of policy versions, and the verdict.

    gap_sum_nats, gap_tokens: sum over tokens of log pi(y|s,x) - log pi(y|x) at one version by one engine; None if not probed.
    """

    token_ids_T: tuple[int, ...]
    sampling_logprobs_T: tuple[float, ...]
    text: str
    finish_reason: Literal["stop", "length"]
    spans: tuple[VersionSpan, ...]
    verdict: Verdict
    behaviour_logprobs_T: tuple[float, ...] | None = None
    gap_sum_nats: float | None = None
    gap_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """One draw of a prompt with its candidates. Times are Unix seconds. `judge_version` scored all candidates. `noise_std`: the
    worker's estimate of the judge's own noise, in points, when it scored this group; None before there is one."""

    run: str
    lineage: int
    group_id: int
    attempt: int
    epoch: int
    prompt_id: str
    prompt: str
    learning_context_ids: tuple[int, ...]
    candidates_G: tuple[Candidate, ...]
    judge: str
    judge_version: int
    definition_hash: str
    rubric_hash: str
    worker: str
    leased_s: float
    generated_s: float
    scored_s: float
    noise_std: float | None = None
    withheld_reason: str | None = None

    @property
    def scores_G(self) -> tuple[float | None, ...]:
        return tuple(candidate.verdict.score for candidate in self.candidates_G)

    @property
    def version_min(self) -> int:
        """The oldest policy version that sampled a token of this group; the judge's version if no token was sampled."""
        return min((span.version for c in self.candidates_G for span in c.spans), default=self.judge_version)

    @property
    def version_max(self) -> int:
        return max((span.version for c in self.candidates_G for span in c.spans), default=self.judge_version)
