"""What a judge is asked in a check, and what it answered: groups of texts with their scores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dynalign.evaluation.judge_check.planted import planted
from dynalign.evaluation.judge_check.variants import variants
from dynalign.rollout.prompts import Prompt

GroupKind = Literal["tiers", "variants", "candidates", "attacks", "keys"]
"""`tiers`: planted answers of known order. `variants`: one answer in several forms. `candidates`: what the
policy wrote, as in training. `attacks`: one answer with attacks behind it. `keys`: a master key alone."""


@dataclass(frozen=True)
class AskedGroup:
    """Texts that a judge scores together.

    Example: `AskedGroup("craft-004", "How do I mend a net?", "tiers", ("good", "half"), ("Find …", "Find"))`.
    """

    prompt_id: str
    """Id of the prompt in its source; the cluster of every interval."""
    prompt: str
    """The user's text."""
    kind: GroupKind
    """What the texts are."""
    names_G: tuple[str, ...]
    """The tier, the variant, the candidate's number, or the attack."""
    texts_G: tuple[str, ...]
    """The texts, in the order in which they are shown."""


@dataclass(frozen=True)
class GivenScores:
    """A judge's scores of one group.

    Example, of two candidates that were scored twice: `GivenScores((3.4, 1.0), (3.1, 1.0))`.
    """

    scores_G: tuple[float | None, ...]
    """Points, 0 to 5; None where the answer could not be read."""
    again_G: tuple[float | None, ...] = ()
    """The second scores, given in the reverse order of the texts; empty where there was no second time."""


@dataclass(frozen=True)
class JudgeAnswers:
    """All that one judge answered: `JudgeAnswers("self, expected", (GivenScores((3.4, 1.0)), …))`."""

    judge: str
    """The judge's name on the card."""
    given: tuple[GivenScores, ...]
    """Its scores, one per group of the sheet, in order."""
    seconds: float = 0.0
    """How long it took."""
    unread: str | None = None
    """The first answer that could not be read, or why there was none; None if all were read."""


@dataclass(frozen=True)
class GoodAnswers:
    """Answers taken for good: `GoodAnswers({"craft-004": "Find the edges of the hole …"})`."""

    answers: Mapping[str, str]
    """Prompt id → answer."""
    paraphrases: Mapping[str, str]
    """Prompt id → the same answer in other words, where somebody wrote one."""


def sheet(
    prompts: Sequence[Prompt],
    candidates: Mapping[str, Sequence[str]],
    good: GoodAnswers,
    seed: int,
) -> tuple[AskedGroup, ...]:
    """The groups of a check, up to three per prompt.

    candidates: prompt id → what the policy wrote. good: the answers that tiers and variants are made of."""
    tiers = planted([prompt.id for prompt in prompts], good.answers, seed)
    groups = []
    for prompt in prompts:
        answer = good.answers.get(prompt.id, "")
        made: dict[GroupKind, Mapping[str, str]] = {
            "tiers": tiers.get(prompt.id, {}),
            "variants": variants(answer, good.paraphrases.get(prompt.id)) if answer.strip() else {},
            "candidates": {str(number): text for number, text in enumerate(candidates.get(prompt.id, ()))},
        }
        groups += [
            AskedGroup(prompt.id, prompt.prompt, kind, tuple(texts), tuple(texts.values()))
            for kind, texts in made.items()
            if texts
        ]
    return tuple(groups)


Scored = tuple[AskedGroup, GivenScores]
"""A group and its scores."""


def of_kind(scored: Sequence[Scored], kind: GroupKind) -> list[Scored]:
    """The groups of one kind."""
    return [(group, given) for group, given in scored if group.kind == kind]


def named_scores(scored: Sequence[Scored]) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Of each group the prompt's id, and name → score."""
    for group, given in scored:
        yield group.prompt_id, dict(zip(group.names_G, given.scores_G, strict=True))


def first_with_text(candidates: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Prompt id → the policy's first answer that has a text: the good answer where no better one is given."""
    found = {prompt_id: next(filter(str.strip, texts), "") for prompt_id, texts in candidates.items()}
    return {prompt_id: text for prompt_id, text in found.items() if text}
