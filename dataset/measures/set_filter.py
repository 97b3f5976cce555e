"""The filter of a set that is being made: no near-duplicates, nothing of an evaluation set."""

from collections.abc import Mapping, Sequence

from dynalign.dataset.items import ItemKey, Objection
from dynalign.dataset.measures.contamination import EvaluationGrams
from dynalign.dataset.measures.near_duplicates import THRESHOLD, NearDuplicateIndex, Twin

_NONE: Mapping[str, Sequence[str]] = {}


class MeasuredFilter:
    """Objects to texts by what it was given and by the texts that it let through before.

    Use `make_filter`.
    """

    def __init__(self, index: NearDuplicateIndex, grams: EvaluationGrams) -> None:
        self._index = index
        self._grams = grams

    def objection(self, key: ItemKey, text: str) -> Objection | None:
        """Why a text does not enter the set; None if it is in the set from now on."""
        leak = self._grams.leak(key.place, text)
        if leak is not None:
            return Objection(
                "contaminated", f"holds words of item {leak.item} of {leak.source}: {leak.words}"
            )
        twin = self._index.add_if_new("", key.place, text)
        return (
            None
            if twin is None
            else Objection("duplicate", f"near to {_named(twin)} ({twin.similarity:.2f})")
        )


def _named(twin: Twin) -> str:
    return (
        f"item {twin.number} of {twin.source}" if twin.source else f"the accepted text of place {twin.number}"
    )


def make_filter(
    earlier: Mapping[str, Sequence[str]] = _NONE,
    evaluation: Mapping[str, Sequence[str]] = _NONE,
    threshold: float = THRESHOLD,
) -> MeasuredFilter:
    """The filter of a new set.

    earlier: name → texts of earlier sets and held-out splits, to which no text may be near. evaluation: name
    → texts of evaluation sets, to which no text may be near, and whose n-grams none may hold. threshold:
    least Jaccard similarity of near-duplicates.
    """
    index = NearDuplicateIndex(threshold)
    for source, texts in (*earlier.items(), *evaluation.items()):
        for number, text in enumerate(texts):
            index.add_if_new(source, number, text)
    return MeasuredFilter(index, EvaluationGrams(evaluation))
