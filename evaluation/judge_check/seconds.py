"""A judge with vetoes and probes, examined as it scores in a run.

    combined   min(own score, every veto's); no score where one of them has none
    members    the judge before its vetoes, and each veto by itself: each measured like any other judge
    probes     beside the combined score, on the policy's candidates; they change nothing

All of it follows from the members' scores, so that a card's figures can be made again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dynalign.evaluation.judge_check.figures import JudgeFigures, judge_figures
from dynalign.evaluation.judge_check.sheet import AskedGroup, GivenScores, JudgeAnswers
from dynalign.evaluation.statistics.agreement import WithinGroups, krippendorff_alpha, tau_within_groups
from dynalign.evaluation.statistics.estimates import Estimate, clustered_mean
from dynalign.rollout.judges.scoring import vetoed


@dataclass(frozen=True)
class MemberAnswers:
    """What the members of one judge answered.

    Example: `MemberAnswers("self, expected, unified, veto frozen", own, (veto,), (probe,), 0.0625)`.
    """

    judge: str
    """The judge's name on the card."""
    own: JudgeAnswers
    """Its scores before any veto, one per group of the sheet."""
    vetoes: tuple[JudgeAnswers, ...]
    """Those of each veto, one per group as well."""
    probes: tuple[JudgeAnswers, ...]
    """Those of each probe, one per group of candidates."""
    probe_fraction: float
    """The share of its groups that a run has probed."""


@dataclass(frozen=True)
class VetoFigures:
    """A veto by itself, and what it does: `VetoFigures(figures, Estimate(0.2, …), Estimate(0.4, …), 0)`."""

    figures: JudgeFigures
    """Measured like any other judge."""
    lowers: Estimate | None
    """The share of the candidates whose score it lowers, where both have one; over prompts."""
    by: Estimate | None
    """The points by which it lowers a score, a mean over the same candidates, 0 included."""
    removes: int
    """Candidates that the judge scored and that have no score, since the veto has none."""


@dataclass(frozen=True)
class ProbeFigures:
    """How a probe scores what the run's judge scores: `ProbeFigures("frozen", tau, alpha, gap, 128, 0)`."""

    probe: str
    """Its name."""
    tau: WithinGroups
    """Kendall's tau-b between its scores and the combined ones, within groups."""
    alpha: Estimate | None
    """Krippendorff's alpha of the two, ordinal; its interval is over prompts."""
    gap: Estimate | None
    """The combined score less its own, in points."""
    scores: int
    """Candidates that it was asked for."""
    unread: int
    """Of these, answers that could not be read."""


@dataclass(frozen=True)
class SecondFigures:
    """All second judges of one judge: `SecondFigures("self, … veto frozen", own, (…,), (…,), 0.0625)`."""

    judge: str
    """The judge's name on the card."""
    own: JudgeFigures | None
    """The judge before its vetoes; None without a veto, since it is then the judge itself."""
    vetoes: tuple[VetoFigures, ...]
    """Each veto."""
    probes: tuple[ProbeFigures, ...]
    """Each probe."""
    probe_fraction: float
    """The share of its groups that a run has probed."""


def combined(groups: Sequence[AskedGroup], members: MemberAnswers) -> JudgeAnswers:
    """The scores that a run would give: those of the judge under its vetoes.

    A veto sees only answers that have a text and a score. The second score of a candidate is lowered by the
    veto's first one."""
    given = []
    for place, group in enumerate(groups):
        own = members.own.given[place]
        vetoes = [veto.given[place].scores_G for veto in members.vetoes]
        seen = [
            bool(text.strip()) and score is not None
            for text, score in zip(group.texts_G, own.scores_G, strict=True)
        ]
        said_G = [
            [scores_G[number] for scores_G in vetoes] if sees else [] for number, sees in enumerate(seen)
        ]
        both = (
            tuple(_under(score, said) for score, said in zip(scores_G, said_G, strict=True))
            for scores_G in (own.scores_G, own.again_G)
            if scores_G
        )
        given.append(GivenScores(*both))
    asked = (members.own, *members.vetoes)
    unread = next((each.unread for each in asked if each.unread is not None), None)
    return JudgeAnswers(members.judge, tuple(given), sum(each.seconds for each in asked), unread)


def _under(score: float | None, vetoes: Sequence[float | None]) -> float | None:
    """A score under vetoes; None where it, or one of them, is missing."""
    read = [veto for veto in vetoes if veto is not None]
    return None if score is None or len(read) < len(vetoes) else vetoed(score, read)


def second_figures(
    groups: Sequence[AskedGroup], members: MemberAnswers, samples: int = 1
) -> SecondFigures | None:
    """What the second judges of a judge are worth; None for a judge without any. samples: verdicts averaged
    per score."""
    if not members.vetoes and not members.probes:
        return None
    whole = combined(groups, members)
    return SecondFigures(
        members.judge,
        judge_figures(groups, members.own, samples) if members.vetoes else None,
        tuple(_veto(groups, members.own, veto, samples) for veto in members.vetoes),
        tuple(_probe(groups, whole, probe) for probe in members.probes),
        members.probe_fraction,
    )


def _veto(groups: Sequence[AskedGroup], own: JudgeAnswers, veto: JudgeAnswers, samples: int) -> VetoFigures:
    pairs = [
        (score, other, group.prompt_id)
        for group, mine, its in zip(groups, own.given, veto.given, strict=True)
        if group.kind == "candidates"
        for score, other in zip(mine.scores_G, its.scores_G, strict=True)
    ]
    read = [(a - min(a, b), prompt) for a, b, prompt in pairs if a is not None and b is not None]
    prompts = [prompt for _, prompt in read]
    return VetoFigures(
        judge_figures(groups, veto, samples),
        clustered_mean([float(lowered > 0) for lowered, _ in read], prompts),
        clustered_mean([lowered for lowered, _ in read], prompts),
        sum(a is not None and b is None for a, b, _ in pairs),
    )


def _probe(groups: Sequence[AskedGroup], whole: JudgeAnswers, probe: JudgeAnswers) -> ProbeFigures:
    asked = [
        (group, given.scores_G)
        for group, given in zip(groups, whole.given, strict=True)
        if group.kind == "candidates"
    ]
    prompts = [group.prompt_id for group, _ in asked]
    mine = [scores_G for _, scores_G in asked]
    its = [given.scores_G for given in probe.given]
    flat = [[score for scores_G in scores for score in scores_G] for scores in (mine, its)]
    owners = [group.prompt_id for group, scores_G in asked for _ in scores_G]
    gaps = [
        (a - b, prompt) for a, b, prompt in zip(*flat, owners, strict=True) if a is not None and b is not None
    ]
    return ProbeFigures(
        probe.judge,
        tau_within_groups(list(zip(mine, its, strict=True)), prompts),
        krippendorff_alpha(flat, "ordinal", owners),
        clustered_mean([gap for gap, _ in gaps], [prompt for _, prompt in gaps]),
        len(owners),
        flat[1].count(None),
    )
