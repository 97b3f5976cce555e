"""Contestants that take turns, so that a machine that warms up or is disturbed does so to all of them
alike."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

Contestant = Callable[[], Awaitable[Mapping[str, float]]]
"""One run: figure → what it measured."""


async def alternated(contestants: Sequence[Contestant], runs: int) -> dict[str, list[float]]:
    """`runs` samples of every figure.

    The order is turned round each time; one round before the first warms up and is dropped.
    """
    samples: dict[str, list[float]] = {}
    for turn in range(runs + 1):
        for contestant in contestants if turn % 2 else contestants[::-1]:
            measured = await contestant()
            if turn:
                for figure, value in measured.items():
                    samples.setdefault(figure, []).append(value)
    return samples
