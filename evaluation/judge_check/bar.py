"""The bar below which a judge is not worth training on. It imports nothing: `train` asks it at once."""

LEAST_AUC = 0.75
"""Of the good answer against the three spoiled ones. A judge that guesses reaches 0.5."""
LEAST_LOW = 0.6
"""The lower end of its 95 % interval has to be above this."""


def reaches_bar(auc: float | None, low: float | None) -> bool:
    """Whether a judge tells a good answer from a spoiled one well enough, and surely enough.

    auc, low: the figure and the lower end of its interval; None where they could not be measured."""
    return auc is not None and low is not None and auc >= LEAST_AUC and low > LEAST_LOW


def bar_in_words() -> str:
    """The bar, for messages and pages."""
    return f"{LEAST_AUC:g} with a lower end above {LEAST_LOW:g}"
