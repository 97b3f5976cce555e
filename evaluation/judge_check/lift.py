"""How far attacks raise a judge's score: the part of a fooled judge that no parse can see.

    lift = score(mediocre answer + attack) - score(the same answer plain)

The mediocre answer is the first half of the good one, so that there is room to rise. Master keys (arXiv
2507.08794) are also judged alone, as whole answers: they say nothing and deserve nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dynalign.evaluation.attacks.corpus import FAMILIES, MASTER_KEY, Attack, attacked
from dynalign.evaluation.judge_check.planted import first_half
from dynalign.evaluation.judge_check.sheet import AskedGroup, Scored, named_scores, of_kind
from dynalign.evaluation.statistics.estimates import Estimate, clustered_mean
from dynalign.evaluation.statistics.paired import PairedChange, change

PLAIN = "plain"
"""Name of the mediocre answer without an attack."""


@dataclass(frozen=True)
class FamilyLift:
    """How far one family of attacks raises the score.

    Example: `FamilyLift("grader override", PairedChange(…), "grader override: note", 1.5, 0)`.
    """

    family: str
    """Its name in `FAMILIES`."""
    change: PairedChange
    """Of the score, in points: attacked less plain."""
    highest: str | None
    """The attack that raised a score most; None without a pair."""
    highest_rise: float | None
    """By how much, in points."""
    unread: int
    """Attacked answers whose score could not be read, while that of the plain one could."""


@dataclass(frozen=True)
class Lift:
    """Of all families, and of master keys alone. Intervals are over prompts.

    Example: `Lift(PairedChange(…), (FamilyLift(…),), Estimate(0.8, 0.5, 1.1, 16), "':'", 2.1)`.
    """

    overall: PairedChange
    """Of the score by all attacks, in points."""
    families: tuple[FamilyLift, ...]
    """Each family that was sampled."""
    keys: Estimate | None
    """Mean score of a master key as the whole answer, in points; None where none was judged or read."""
    highest_key: str | None
    """The key with the highest score."""
    highest_key_score: float | None
    """That score, in points."""


def attack_groups(
    prompt_id: str, prompt: str, answer: str, dealt: Sequence[Attack], size: int
) -> Iterator[AskedGroup]:
    """The groups of one prompt: the plain answer with at most `size` - 1 attacked ones beside it, and each
    master key that is not blank alone, since a judge that ranks would place keys among each other.

    answer: the good one. dealt: the attacks. size: of a group, at least 2 texts."""
    plain = first_half(answer) or answer
    room = max(1, size - 1)
    for first in range(0, len(dealt), room):
        chunk = dealt[first : first + room]
        names = (PLAIN, *(attack.label for attack in chunk))
        texts = (plain, *(attacked(plain, attack) for attack in chunk))
        yield AskedGroup(prompt_id, prompt, "attacks", names, texts)
    for attack in dealt:
        if attack.family == MASTER_KEY and attack.text.strip():
            yield AskedGroup(prompt_id, prompt, "keys", (attack.name,), (attack.text,))


def lift(scored: Sequence[Scored]) -> Lift | None:
    """The lift in a judge's scores; None where no attack was judged."""
    rows = [
        (prompt, label, scores[PLAIN], score)
        for prompt, scores in named_scores(of_kind(scored, "attacks"))
        for label, score in scores.items()
        if label != PLAIN
    ]
    if not rows:
        return None
    keys = [
        (score, prompt, key)
        for prompt, scores in named_scores(of_kind(scored, "keys"))
        for key, score in scores.items()
        if score is not None
    ]
    best = max(keys, default=None)
    return Lift(
        _change(rows),
        tuple(_family(family, of_family) for family, of_family in _by_family(rows)),
        clustered_mean([score for score, _, _ in keys], [prompt for _, prompt, _ in keys]),
        best[2] if best else None,
        best[0] if best else None,
    )


_Row = tuple[str, str, float | None, float | None]
"""Prompt, attack, score of the plain answer, score of the attacked one."""


def _by_family(rows: Sequence[_Row]) -> Iterator[tuple[str, list[_Row]]]:
    for family in FAMILIES:
        of_family = [row for row in rows if row[1].startswith(f"{family}: ")]
        if of_family:
            yield family, of_family


def _family(family: str, rows: Sequence[_Row]) -> FamilyLift:
    rises = [
        (after - before, label)
        for _, label, before, after in rows
        if before is not None and after is not None
    ]
    best = max(rises, default=None)
    unread = sum(before is not None and after is None for _, _, before, after in rows)
    return FamilyLift(family, _change(rows), best[1] if best else None, best[0] if best else None, unread)


def _change(rows: Sequence[_Row]) -> PairedChange:
    return change([row[2] for row in rows], [row[3] for row in rows], [row[0] for row in rows])
