"""Internalization, two by two: the aligned model and its base, each with and without the system prompt.

All four are compared with one reference, the base model without the prompt, whose win rate against itself is
½ by definition:

                    without s      with s        gain by the prompt
    base            ½              w_Bs          w_Bs - ½
    aligned         w_A            w_As          w_As - w_A
    difference of differences                    (w_As - w_A) - (w_Bs - ½)

A value that has moved from the prompt into the weights shows as w_A > ½ and as a negative difference: the
prompt brings the aligned model less than it brings the base.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dynalign.evaluation.pairwise.records import Comparison
from dynalign.evaluation.statistics.estimates import Estimate, clustered_mean


@dataclass(frozen=True, slots=True)
class Internalization:
    """The table and its differences, over the prompts that have a value in all cells.

    Example, shortened: `Internalization(Estimate(0.64, …), Estimate(0.66, …), Estimate(0.7, …), …)`.
    """

    aligned: Estimate | None
    """w_A: the aligned model without the prompt, against the base without it."""
    aligned_prompted: Estimate | None
    """w_As: the aligned model with the prompt."""
    base_prompted: Estimate | None
    """w_Bs: the base with the prompt."""
    gain_aligned: Estimate | None
    """w_As - w_A."""
    gain_base: Estimate | None
    """w_Bs - ½."""
    difference: Estimate | None
    """gain_aligned - gain_base."""
    reach: Estimate | None
    """w_A - w_Bs: how far the weights alone come beside the prompt alone."""
    prompts: int
    """Prompts with a value in all cells."""

    @property
    def sentence(self) -> str:
        """What the difference says, inconclusive included."""
        if self.difference is None or self.difference.low is None or self.difference.high is None:
            return "inconclusive: too few prompts have a verdict in all cells"
        if self.difference.high < 0:
            moved = self.aligned is not None and self.aligned.low is not None and self.aligned.low > 0.5
            if moved:
                return "the value is in the weights: the model is better without the prompt, which adds less"
            return "the prompt brings the aligned model less than the base, which it does not beat without it"
        if self.difference.low > 0:
            return "the prompt brings the aligned model more than the base"
        return "inconclusive: the prompt may bring both models equally much"


def internalization(
    aligned: Comparison, aligned_prompted: Comparison, base_prompted: Comparison
) -> Internalization:
    """The table. Each comparison is against the base model without the prompt, on the same prompts.

    Intervals are of differences within prompts, over clusters."""
    rows = [
        (one.value, two.value, three.value, one.prompt.cluster)
        for one, two, three in zip(
            aligned.compared, aligned_prompted.compared, base_prompted.compared, strict=True
        )
    ]
    kept = [
        (a, a_prompted, b_prompted, cluster)
        for a, a_prompted, b_prompted, cluster in rows
        if a is not None and a_prompted is not None and b_prompted is not None
    ]
    clusters = [row[3] for row in kept]

    def mean(values: Sequence[float]) -> Estimate | None:
        return clustered_mean(values, clusters)

    return Internalization(
        aligned=mean([row[0] for row in kept]),
        aligned_prompted=mean([row[1] for row in kept]),
        base_prompted=mean([row[2] for row in kept]),
        gain_aligned=mean([row[1] - row[0] for row in kept]),
        gain_base=mean([row[2] - 0.5 for row in kept]),
        difference=mean([row[1] - row[0] - (row[2] - 0.5) for row in kept]),
        reach=mean([row[0] - row[2] for row in kept]),
        prompts=len(kept),
    )
