"""From the verdicts of a comparison to its figures: pure functions, so that they can be made again.

A prompt's value is the mean over judges of the mean over both orders. The win rate is the mean over prompts;
its interval is over clusters (goals where there are goals, otherwise prompts).
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dynalign.evaluation.pairwise.length_control import LengthControlled, length_controlled
from dynalign.evaluation.pairwise.records import VALUES, ComparedPrompt, Comparison, ModelAnswer, PairVerdicts
from dynalign.evaluation.pairwise.ties import (
    OrderAgreement,
    TieRule,
    order_agreement,
    rate_interval,
    tie_rules,
)
from dynalign.evaluation.statistics.agreement import krippendorff_alpha
from dynalign.evaluation.statistics.bootstrap import bootstrapped_mean
from dynalign.evaluation.statistics.estimates import Estimate, clustered_mean
from dynalign.evaluation.statistics.paired import PositionBias, position_bias

MOST_BIAS = 0.25
"""A judge whose verdicts follow the place this far (three quarters go to one place) is called unusable."""
MOST_UNREAD = 0.5
"""And one of whom this share of the verdicts cannot be read."""
LEAST_ALPHA = 0.4
"""Below it judges agree too little for one win rate of all of them. Krippendorff asks for 0.667 before even
tentative conclusions; preference verdicts seldom reach that."""


@dataclass(frozen=True, slots=True)
class VerdictCounts:
    """What became of one judge's verdicts, two per prompt.

    Example: `VerdictCounts(200, 6, 190, 3, 1, 4)`.
    """

    wanted: int
    """Two per prompt."""
    without_asking: int
    """Of pairs that need no judge: an empty answer, or two equal ones."""
    read: int
    """Verdicts that the judge gave."""
    unread: int
    """Answers of the judge that could not be read. They are no wins."""
    refused: int
    """Questions that could not be put."""
    ties: int
    """Of the verdicts read, ties."""


@dataclass(frozen=True, slots=True)
class JudgeResult:
    """What one judge says: `JudgeResult("gpt-oss-20b", Estimate(0.62, …), counts, position, agreement)`."""

    judge: str
    """The judge's name."""
    win_rate: Estimate | None
    """By this judge alone."""
    counts: VerdictCounts
    """What became of its verdicts."""
    position: PositionBias
    """Its bias for a place, over the pairs that it was asked about."""
    agreement: OrderAgreement
    """What both orders say together."""

    @property
    def unusable(self) -> str | None:
        """Why this judge says nothing about the models; None for one that may."""
        asked = self.counts.read + self.counts.unread
        if asked and self.counts.unread / asked > MOST_UNREAD:
            return f"{self.counts.unread} of its {asked} answers cannot be read"
        bias = self.position.bias
        if bias is not None and abs(bias.mean) > MOST_BIAS:
            place = "first" if bias.mean > 0 else "second"
            return f"it prefers what is shown {place} ({self.position.flips} of {self.position.pairs} flip)"
        if self.position.follows_the_order:
            flips = f"{self.position.flips} of {self.position.pairs} verdicts flip with the order"
            return f"{flips}, more than a coin's would"
        return None


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """Of one model's answers: `AnswerCounts(100, empty=0, cut_off=12, refused=0, characters=811.5)`."""

    answers: int
    """One per prompt."""
    empty: int
    """Without a text. An empty answer loses to one with a text."""
    cut_off: int
    """That reached the most tokens of an answer."""
    refused: int
    """Questions that could not be put to the model, or that it declined."""
    characters: float
    """Mean length."""


@dataclass(frozen=True, slots=True)
class PairFigures:
    """All figures of a comparison.

    Example, shortened: `PairFigures("aligned", "base", Estimate(0.63, 0.55, 0.71, 100), …)`.
    """

    model: str
    """The model under test."""
    against: str
    """The other one."""
    win_rate: Estimate | None
    """Mean over prompts; interval by Student's t over clusters. None without a readable pair."""
    bootstrap: Estimate | None
    """The same with the interval of the cluster bootstrap; without one where every unit is the same."""
    prompts: int
    """Prompts that were asked."""
    unread_prompts: int
    """Of these, without a readable pair of verdicts from any judge. They are in no figure."""
    worst: float | None
    """The win rate if all of these were lost."""
    best: float | None
    """And if all were won."""
    rules: tuple[TieRule, ...]
    """The three rules for ties, and the pairs on which both orders agree."""
    controlled: LengthControlled | None
    """At equal length and markup."""
    answers: tuple[AnswerCounts, AnswerCounts]
    """Of the model under test, and of the other one."""
    judges: tuple[JudgeResult, ...]
    """Each judge by itself."""
    alpha: Estimate | None
    """Krippendorff's α (ordinal) of the judges over prompts and orders; None for one judge."""
    without_one: tuple[float, float] | None
    """The lowest and the highest win rate with one judge left out; None for one judge."""
    agree_JJ: tuple[tuple[float | None, ...], ...]
    """Share of the verdicts on which two judges agree."""
    warnings: tuple[str, ...]
    """What makes the figures less than they seem, a sentence each."""


def pair_figures(comparison: Comparison, families: Sequence[str] = (), seed: int = 0) -> PairFigures:
    """The figures of a comparison.

    families: of the model under test, of the other one, then of each judge; empty where they are unknown.
    seed: of the bootstrap."""
    compared = comparison.compared
    judged = [(row.value, row.prompt.cluster) for row in compared if row.value is not None]
    values = [value for value, _ in judged]
    clusters = [cluster for _, cluster in judged]
    win_rate = rate_interval(clustered_mean(values, clusters))
    judges = tuple(_judge(comparison, index) for index in range(len(comparison.judges)))
    alpha = _alpha(compared, len(judges), seed)
    agree_JJ = _agree(compared, len(judges))
    return PairFigures(
        model=comparison.model,
        against=comparison.against,
        win_rate=win_rate,
        bootstrap=_resampled(values, clusters, seed),
        prompts=len(compared),
        unread_prompts=len(compared) - len(judged),
        worst=sum(values) / len(compared) if compared else None,
        best=(sum(values) + len(compared) - len(judged)) / len(compared) if compared else None,
        rules=tie_rules(compared, win_rate, seed),
        controlled=length_controlled(compared),
        answers=(
            _answer_counts([row.answer for row in compared]),
            _answer_counts([row.other for row in compared]),
        ),
        judges=judges,
        alpha=alpha,
        without_one=_without_one(compared, len(judges)),
        agree_JJ=agree_JJ,
        warnings=tuple(_warnings(comparison, judges, alpha, agree_JJ, families)),
    )


def family(name: str) -> str:
    """The family that a model's name begins with: `Qwen/Qwen3-14B` → qwen, `gpt-oss-20b` → gpt."""
    found = re.match(r"[^a-z]*([a-z]+)", name.rstrip("/").rsplit("/", 1)[-1].lower())
    return found[1] if found else ""


def _resampled(values: Sequence[float], clusters: Sequence[str], seed: int) -> Estimate | None:
    """Resamples of equal units are equal: they show no interval."""
    found = bootstrapped_mean(values, clusters, seed)
    return Estimate(found.mean, n=found.n) if found is not None and found.low == found.high else found


def _judge(comparison: Comparison, index: int) -> JudgeResult:
    rows = [(row.prompt.cluster, row.verdicts_J[index]) for row in comparison.compared]
    read = [(cluster, each.value) for cluster, each in rows if each.value is not None]
    asked = [(cluster, each) for cluster, each in rows if each.asked]
    both = [(cluster, each) for cluster, each in asked if each.value is not None]
    labels = Counter(label for _, each in asked for label in (each.when_first, each.when_second))
    counts = VerdictCounts(
        wanted=2 * len(rows),
        without_asking=2 * (len(rows) - len(asked)),
        read=sum(labels[label] for label in VALUES),
        unread=labels["unread"],
        refused=labels["refused"],
        ties=labels["tie"],
    )
    position = position_bias(
        [VALUES[each.when_first] for _, each in both],
        [VALUES[each.when_second] for _, each in both],
        [cluster for cluster, _ in both],
    )
    win_rate = rate_interval(clustered_mean([value for _, value in read], [cluster for cluster, _ in read]))
    agreement = order_agreement([each for _, each in both])
    return JudgeResult(comparison.judges[index], win_rate, counts, position, agreement)


def _answer_counts(answers: Sequence[ModelAnswer]) -> AnswerCounts:
    reasons = Counter(each.finish_reason for each in answers)
    return AnswerCounts(
        len(answers),
        sum(each.is_empty for each in answers),
        reasons["length"],
        reasons["refused"],
        sum(len(each.text) for each in answers) / max(1, len(answers)),
    )


def _labels(verdicts: PairVerdicts) -> tuple[float | None, float | None]:
    return VALUES.get(verdicts.when_first), VALUES.get(verdicts.when_second)


def _alpha(compared: Sequence[ComparedPrompt], judges: int, seed: int) -> Estimate | None:
    """Over the pairs that judges were asked about: on the others they cannot differ."""
    if judges < 2:
        return None
    rows = [row for row in compared if row.verdicts_J[0].asked]
    ratings = [[value for row in rows for value in _labels(row.verdicts_J[judge])] for judge in range(judges)]
    clusters = [row.prompt.cluster for row in rows for _ in range(2)]
    return krippendorff_alpha(ratings, "ordinal", clusters, seed) if rows else None


def _agree(compared: Sequence[ComparedPrompt], judges: int) -> tuple[tuple[float | None, ...], ...]:
    rows = [[_labels(each) for each in row.verdicts_J] for row in compared if row.verdicts_J[0].asked]

    def share(one: int, other: int) -> float | None:
        pairs = [
            (a, b)
            for row in rows
            for a, b in zip(row[one], row[other], strict=True)
            if a is not None and b is not None
        ]
        return sum(a == b for a, b in pairs) / len(pairs) if pairs else None

    return tuple(tuple(share(one, other) for other in range(judges)) for one in range(judges))


def _without_one(compared: Sequence[ComparedPrompt], judges: int) -> tuple[float, float] | None:
    if judges < 2:
        return None
    rates = []
    for left_out in range(judges):
        values = []
        for row in compared:
            kept = [
                each.value
                for index, each in enumerate(row.verdicts_J)
                if index != left_out and each.value is not None
            ]
            values += [sum(kept) / len(kept)] if kept else []
        rates += [sum(values) / len(values)] if values else []
    return (min(rates), max(rates)) if rates else None


def _warnings(
    comparison: Comparison,
    judges: Sequence[JudgeResult],
    alpha: Estimate | None,
    agree_JJ: Sequence[Sequence[float | None]],
    families: Sequence[str],
) -> list[str]:
    found = [f"{each.judge} is unusable as a judge here: {each.unusable}" for each in judges if each.unusable]
    if alpha is not None and alpha.mean < LEAST_ALPHA:
        shares = [one for row, line in enumerate(agree_JJ) for one in line[:row] if one is not None]
        same = f"they give the same verdict in {min(shares):.0%} to {max(shares):.0%}" if shares else ""
        found.append(
            f"the judges agree little (Krippendorff's α {alpha.mean:.2f}, below {LEAST_ALPHA:g}; {same})"
        )
    tested = families[:2]
    for judge, of_judge in zip(judges, families[2:], strict=False):
        kin = [
            name
            for name, of_model in zip((comparison.model, comparison.against), tested, strict=False)
            if of_judge and of_model == of_judge
        ]
        if kin:
            named = " and ".join(kin)
            found.append(f"{judge.judge} judges its own family ({of_judge}: {named}), which it may prefer")
    return found
