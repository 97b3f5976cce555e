"""The figures of a made set's card: what became of the items, and the measures of the accepted prompts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynalign.dataset.measures.examination import ExaminedSet, GivenSet, examine
from dynalign.dataset.measures.set_files import MadeSet

FORMAT = 1
"""Of card.json."""


@dataclass(frozen=True)
class SetFigures:
    """All figures of a card: asked = accepted + rejected + failed.

    Example: `SetFigures("set", 1100, 1000, {"duplicate": 80}, {"endpoint": 20}, 900, 100, 40, 0, (…),
    (("builtin held-out", 44),))`.
    """

    name: str
    """Name of the set."""
    asked: int
    """Items that were asked for."""
    accepted: int
    """Items in the set."""
    rejected: Mapping[str, int]
    """Reason → items, most frequent first."""
    failed: Mapping[str, int]
    """Reason → items, most frequent first."""
    train: int
    """Accepted prompts of the split train."""
    heldout: int
    """Accepted prompts of the split heldout."""
    goals: int
    """Goals of the accepted prompts."""
    goals_in_both: int
    """Goals that are in both splits: none, where the split is by goal."""
    sets: tuple[ExaminedSet, ...]
    """The measures, first of this set, then of those beside it; empty where nothing was accepted."""
    evaluation: tuple[tuple[str, int], ...]
    """Evaluation sets that the prompts were compared with, each with its number of items."""


def set_figures(
    made: MadeSet, beside: Sequence[GivenSet], evaluation: Mapping[str, Sequence[str]]
) -> SetFigures:
    """The figures of a made set.

    beside: sets whose figures are shown beside, such as the shipped prompts; the made set is compared with
    them. evaluation: name → texts.
    """
    fates = Counter((str(item["fate"]), str(item["reason"])) for item in made.items)
    splits: dict[str, set[str]] = {"train": set(), "heldout": set()}
    for prompt in made.prompts:
        splits[str(prompt["split"])].add(str(prompt["goal"]))
    texts = Counter(str(prompt["split"]) for prompt in made.prompts)
    given = [*beside, made.given()] if made.prompts else []
    *others, own = examine(given, evaluation) or (None,)
    return SetFigures(
        name=made.name,
        asked=len(made.items),
        accepted=sum(count for (fate, _), count in fates.items() if fate == "accepted"),
        rejected=_reasons(fates, "rejected"),
        failed=_reasons(fates, "failed"),
        train=texts["train"],
        heldout=texts["heldout"],
        goals=len(splits["train"] | splits["heldout"]),
        goals_in_both=len(splits["train"] & splits["heldout"]),
        sets=() if own is None else (own, *others),
        evaluation=tuple((name, len(items)) for name, items in evaluation.items()),
    )


def _reasons(fates: Mapping[tuple[str, str], int], fate: str) -> dict[str, int]:
    counts = {reason: count for (of, reason), count in fates.items() if of == fate}
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))
