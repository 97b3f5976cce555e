"""The card of a check: every figure, and every text and score from which it was computed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from dynalign.evaluation.judge_check.bar import reaches_bar
from dynalign.evaluation.judge_check.figures import Agreement, JudgeFigures, agreement, judge_figures
from dynalign.evaluation.judge_check.seconds import (
    MemberAnswers,
    SecondFigures,
    combined,
    second_figures,
)
from dynalign.evaluation.judge_check.sheet import AskedGroup, JudgeAnswers

FORMAT = 3
"""Of the JSON file."""


@dataclass(frozen=True)
class CardFacts:
    """What was checked, and on what.

    Example: `CardFacts("quickstart", "smollm2-135m-instruct", 16, 8, "the policy's own", "none", …)`.
    """

    run: str
    """Name of the run whose settings were used."""
    model: str
    """The policy, as the setting `model` names it."""
    prompts: int
    """Held-out prompts."""
    group_size: int
    """Candidates of the policy per prompt."""
    good_answers: str
    """Where the good answers came from, in words."""
    attacks: str
    """Which attacks were tried, in words."""
    engine: str
    """Engine and precision."""
    day: str
    """When, as YYYY-MM-DD."""


@dataclass(frozen=True)
class JudgeCard:
    """All that a check found. The same figures are shown in HTML, Markdown and JSON.

    Example: `JudgeCard(facts, groups, answers, (JudgeFigures(…),), None, members, ())`.
    """

    facts: CardFacts
    """What was checked."""
    groups: tuple[AskedGroup, ...]
    """The texts that were judged."""
    answers: tuple[JudgeAnswers, ...]
    """Each judge's scores of them, its vetoes applied, as a run would have them."""
    judges: tuple[JudgeFigures, ...]
    """Each judge's figures; the first judge is that of the run."""
    agreement: Agreement | None
    """Of all judges; None for one judge alone."""
    members: tuple[MemberAnswers, ...]
    """What each judge was before its vetoes, its vetoes, and its probes answered."""
    seconds: tuple[SecondFigures, ...]
    """The vetoes and probes of each judge that has some."""

    def seconds_of(self, judge: str) -> SecondFigures | None:
        """The vetoes and probes of a judge; None for one without."""
        return next((each for each in self.seconds if each.judge == judge), None)


def make_card(
    facts: CardFacts,
    groups: Sequence[AskedGroup],
    members: Sequence[MemberAnswers],
    samples: Sequence[int],
) -> JudgeCard:
    """The card of a check. members: what each judge, its vetoes and its probes answered. samples: verdicts
    averaged per score, of each judge."""
    answers = [combined(groups, each) for each in members]
    figures = [judge_figures(groups, each, times) for each, times in zip(answers, samples, strict=True)]
    seconds = [second_figures(groups, each, times) for each, times in zip(members, samples, strict=True)]
    return JudgeCard(
        facts,
        tuple(groups),
        tuple(answers),
        tuple(figures),
        agreement(groups, answers),
        tuple(members),
        tuple(each for each in seconds if each is not None),
    )


def as_json(card: JudgeCard) -> str:
    """The card as JSON: figures, texts, scores. A figure that is not defined is null."""
    content = {"format": FORMAT, **asdict(card)}
    for judge, figures in zip(content["judges"], card.judges, strict=True):
        judge["reaches_bar"] = passes(figures)
    return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def passes(figures: JudgeFigures) -> bool:
    """Whether a judge reaches the bar."""
    overall = figures.overall.auc
    return overall is not None and reaches_bar(overall.mean, overall.low, figures.unread_share)
