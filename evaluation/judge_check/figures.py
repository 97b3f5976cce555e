"""From a judge's scores to what it is worth: pure functions, so that a card's figures can be made again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from dynalign.evaluation.judge_check.lift import Lift, lift
from dynalign.evaluation.judge_check.planted import SPOILED, TIERS
from dynalign.evaluation.judge_check.sheet import AskedGroup, JudgeAnswers, Scored, named_scores, of_kind
from dynalign.evaluation.judge_check.variants import ORIGINAL, VARIANTS
from dynalign.evaluation.statistics.agreement import WithinGroups, krippendorff_alpha, tau_within_groups
from dynalign.evaluation.statistics.auc import auc
from dynalign.evaluation.statistics.estimates import Estimate, clustered_mean, mean_interval
from dynalign.evaluation.statistics.paired import Flips, PairedChange, change, label_flips
from dynalign.evaluation.statistics.reliability import Reliability, reliability, samples_needed


@dataclass(frozen=True)
class TierPair:
    """How often the better of two planted answers gets the higher score.

    Example: `TierPair("good", "half", Estimate(0.78, 0.61, 0.89, 32))`.
    """

    better: str
    """The better tier; its name in `TIERS`."""
    worse: str
    """The worse one, or several."""
    auc: Estimate | None
    """Probability that the better answer to a prompt scores above the worse one, ties half; its interval is
    over prompts. None where there is no pair."""


@dataclass(frozen=True)
class VariantFigures:
    """What another form of the same answer does to its score.

    Example: `VariantFigures("padding", PairedChange(…), Flips(up=5, down=1, pairs=16, p=0.219))`.
    """

    name: str
    """The variant; its name in `VARIANTS`."""
    change: PairedChange
    """Of the score, in points."""
    flips: Flips
    """Of the score rounded to a whole number."""


@dataclass(frozen=True)
class JudgeFigures:
    """All figures of one judge. Intervals are over prompts.

    Example, shortened: `JudgeFigures("self, expected", 640, 0, 12.5, None, TierPair("good", …), …)`.
    """

    judge: str
    """The judge's name on the card."""
    scores: int
    """Scores that were asked for."""
    unread: int
    """Of these, answers that could not be read."""
    seconds: float
    """How long all of them took."""
    unread_example: str | None
    """The first answer that could not be read; None if all were read."""
    overall: TierPair
    """The good answer against the spoiled ones, to the same prompt: the figure of the bar."""
    across: Estimate | None
    """The same over all pairs, also of different prompts."""
    adjacent: tuple[TierPair, ...]
    """Each tier against the next one."""
    tiers: tuple[tuple[str, Estimate | None], ...]
    """Tier and its mean score in points."""
    variants: tuple[VariantFigures, ...]
    """Those that applied to an answer."""
    reliability: Reliability | None
    """Of the differences between the policy's candidates; None where none was scored twice."""
    samples: int
    """Verdicts that were averaged per score."""
    samples_needed: int | None
    """How many would make the reliability 0.8; None where no number would."""
    samples_needed_range: tuple[int | None, int | None]
    """The same at the upper and at the lower end of the reliability's interval."""
    position: Estimate | None
    """Points that the first place in a group gives over the last; None for a single candidate."""
    lift: Lift | None
    """How far attacks raise its scores; None where none was judged."""

    @property
    def unread_share(self) -> float:
        """The share of scores that could not be read."""
        return self.unread / self.scores if self.scores else 0.0


@dataclass(frozen=True)
class JudgePair:
    """How two judges order the same candidates: `JudgePair("self", "function", WithinGroups(…))`."""

    first: str
    """The name of one."""
    second: str
    """The name of the other."""
    tau: WithinGroups
    """Kendall's tau-b within groups."""


@dataclass(frozen=True)
class Agreement:
    """Of all judges, on the policy's candidates: `Agreement(Estimate(0.21, …), (JudgePair(…),))`."""

    alpha: Estimate | None
    """Krippendorff's alpha, ordinal; its interval is over prompts. None where it is not defined."""
    pairs: tuple[JudgePair, ...]
    """Each pair of judges."""


def judge_figures(groups: Sequence[AskedGroup], answers: JudgeAnswers, samples: int = 1) -> JudgeFigures:
    """What one judge is worth. samples: verdicts averaged per score. Raises ValueError if a group has no
    scores."""
    scored = list(zip(groups, answers.given, strict=True))
    every = [score for _, given in scored for score in (*given.scores_G, *given.again_G)]
    candidates = of_kind(scored, "candidates")
    tiers = of_kind(scored, "tiers")
    repeated = [list(zip(given.scores_G, given.again_G, strict=True)) for _, given in candidates]
    found = reliability(repeated, [group.prompt_id for group, _ in candidates])
    of_one = found.of_one if found else None
    return JudgeFigures(
        judge=answers.judge,
        scores=len(every),
        unread=every.count(None),
        seconds=answers.seconds,
        unread_example=answers.unread,
        overall=TierPair("good", ", ".join(SPOILED), _auc(tiers, ("good",), SPOILED)),
        across=_auc(tiers, ("good",), SPOILED, across=True),
        adjacent=tuple(TierPair(a, b, _auc(tiers, (a,), (b,))) for a, b in pairwise(TIERS)),
        tiers=tuple((tier, _mean_of(tiers, tier)) for tier in TIERS),
        variants=tuple(_variants(of_kind(scored, "variants"))),
        reliability=found,
        samples=samples,
        samples_needed=samples_needed(of_one.mean if of_one else None, samples),
        samples_needed_range=(
            samples_needed(of_one.high if of_one else None, samples),
            samples_needed(of_one.low if of_one else None, samples),
        ),
        position=_position(candidates),
        lift=lift(scored),
    )


def agreement(groups: Sequence[AskedGroup], judges: Sequence[JudgeAnswers]) -> Agreement | None:
    """How far judges agree on the policy's candidates; None for one judge alone."""
    if len(judges) < 2:
        return None
    asked = [group for group in groups if group.kind == "candidates"]
    scores = {
        answers.judge: [
            given.scores_G
            for group, given in zip(groups, answers.given, strict=True)
            if group.kind == "candidates"
        ]
        for answers in judges
    }
    prompts = [group.prompt_id for group in asked]
    alpha = krippendorff_alpha(
        [[score for scores_G in given for score in scores_G] for given in scores.values()],
        "ordinal",
        [group.prompt_id for group in asked for _ in group.names_G],
    )
    pairs = [
        JudgePair(a, b, tau_within_groups(list(zip(scores[a], scores[b], strict=True)), prompts))
        for a, b in combinations(scores, 2)
    ]
    return Agreement(alpha, tuple(pairs))


def _auc(
    tiers: Sequence[Scored], better: Sequence[str], worse: Sequence[str], across: bool = False
) -> Estimate | None:
    rows = [
        (score, name in better, prompt)
        for prompt, scores in named_scores(tiers)
        for name, score in scores.items()
        if name in (*better, *worse) and score is not None
    ]
    labels = [label for _, label, _ in rows]
    return auc([row[0] for row in rows], labels, [row[2] for row in rows], "all" if across else "within")


def _mean_of(tiers: Sequence[Scored], tier: str) -> Estimate | None:
    scores = [named.get(tier) for _, named in named_scores(tiers)]
    return mean_interval([score for score in scores if score is not None])


def _variants(scored: Sequence[Scored]) -> Iterator[VariantFigures]:
    for name in VARIANTS:
        of_name = [(prompt, scores) for prompt, scores in named_scores(scored) if name in scores]
        if not of_name:
            continue
        before = [scores[ORIGINAL] for _, scores in of_name]
        after = [scores[name] for _, scores in of_name]
        flips = label_flips([_label(score) for score in before], [_label(score) for score in after])
        yield VariantFigures(name, change(before, after, [prompt for prompt, _ in of_name]), flips)


def _label(score: float | None) -> int | None:
    """The score as a whole number, halves upwards."""
    return None if score is None else int(score + 0.5)


def _position(candidates: Sequence[Scored]) -> Estimate | None:
    """Points that the first place gives over the last, a mean over prompts.

    The second time the order was reversed, so candidate i of G moved by d = (G - 1) - 2i places. The slope of
    its change over -d, times the G - 1 places from the last to the first."""
    slopes: list[float] = []
    prompts: list[str] = []
    for group, given in candidates:
        last = len(group.names_G) - 1
        moved = [
            (2 * place - last, again - first)
            for place, (first, again) in enumerate(zip(given.scores_G, given.again_G, strict=True))
            if first is not None and again is not None
        ]
        squares = sum(towards_first**2 for towards_first, _ in moved)
        if squares:
            slope = sum(towards_first * delta for towards_first, delta in moved) / squares
            slopes.append(slope * last)
            prompts.append(group.prompt_id)
    return clustered_mean(slopes, prompts)
