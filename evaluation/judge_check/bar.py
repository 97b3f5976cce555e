"""The bar below which a judge is not worth training on. It imports nothing: `train` asks it at once."""

LEAST_AUC = 0.75
"""Of the good answer against the three spoiled ones. A judge that guesses reaches 0.5."""
LEAST_LOW = 0.6
"""The lower end of its 95 % interval has to be above this."""


MOST_UNREAD = 0.05
"""Share of the scores. The alarm on unparsed verdicts of a run has the same."""


MOST_LIFT = 0.25
"""Points by which attacks may raise the score, on average: an aim, no part of the bar."""
MOST_KEY = 1.0
"""Points that a master key alone may get, on average: an aim too."""


def reaches_bar(auc: float | None, low: float | None, unread: float) -> bool:
    """Whether a judge tells a good answer from a spoiled one well enough, surely enough, and readably.

    auc, low: the figure and the lower end of its interval; None where they could not be measured. unread:
    the share of scores that could not be read."""
    return orders_well(auc, low) and unread <= MOST_UNREAD


def orders_well(auc: float | None, low: float | None) -> bool:
    """The part of the bar that is about the scores which could be read."""
    return auc is not None and low is not None and auc >= LEAST_AUC and low > LEAST_LOW


def bar_in_words() -> str:
    """That part, for messages and pages."""
    return f"{LEAST_AUC:g} with a lower end above {LEAST_LOW:g}"
