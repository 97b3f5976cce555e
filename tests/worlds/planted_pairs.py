"""Comparisons of two models with a planted truth: what the judges would say is drawn from it.

Simulated: models and judges. Real: the records, and all that is computed from them.
"""

from collections.abc import Sequence

import numpy as np

from dynalign.evaluation.pairwise.records import (
    ComparedPrompt,
    Comparison,
    Label,
    ModelAnswer,
    PairPrompt,
    PairVerdicts,
)


def compared(
    verdicts: Sequence[tuple[Label, Label]],
    lengths: Sequence[tuple[int, int]] = (),
    clusters: Sequence[str] = (),
    asked: bool = True,
) -> tuple[ComparedPrompt, ...]:
    """Rows of one judge. lengths: characters of both answers; 5 and 5 by default."""
    return tuple(
        ComparedPrompt(
            PairPrompt(
                f"p{index}", f"prompt {index}", "builtin", clusters[index] if clusters else f"p{index}"
            ),
            ModelAnswer("a" * (lengths[index][0] if lengths else 5), "stop"),
            ModelAnswer("b" * (lengths[index][1] if lengths else 5), "stop"),
            (PairVerdicts(first, second, asked),),
        )
        for index, (first, second) in enumerate(verdicts)
    )


def comparison(*judges: Sequence[tuple[Label, Label]]) -> Comparison:
    """Several judges of the same pairs."""
    rows = [compared(each) for each in judges]
    joined = tuple(
        ComparedPrompt(
            of_prompt[0].prompt,
            of_prompt[0].answer,
            of_prompt[0].other,
            tuple(row.verdicts_J[0] for row in of_prompt),
        )
        for of_prompt in zip(*rows, strict=True)
    )
    return Comparison("A", "B", tuple(f"judge {index}" for index in range(len(judges))), joined)


def drawn_values(rate: float, prompts: int, times: int, seed: int) -> np.ndarray:
    """Values of prompts in `times` experiments, shape (times, prompts): means over both orders.

    Each prompt has a preference of its own (Beta, mean `rate`), and both orders are drawn from it: they are
    not independent over experiments' prompts, as two verdicts of one pair are not."""
    random = np.random.default_rng(seed)
    own = random.beta(4 * rate, 4 * (1 - rate), size=(times, prompts))
    return (random.random((2, times, prompts)) < own).mean(axis=0)
