"""Rewards that end or delay their worker, or give no signal, so that tests need no hook in the product."""

import os
import time


def breaks_on_knots(prompt: str, completion: str) -> float:
    """End the process at once for any prompt about knots."""
    if "knot" in prompt:
        os._exit(13)
    return (len(completion) * 7919 % 50) / 10


_calls = 0


def breaks_after_fifty(prompt: str, completion: str) -> float:
    """End the process at its fiftieth candidate, whatever that is."""
    global _calls
    _calls += 1
    if _calls == 50:
        os._exit(13)
    return (len(completion) * 7919 % 50) / 10


def breaks_always(prompt: str, completion: str) -> float:
    """End the process at its first candidate."""
    os._exit(13)


def slow(prompt: str, completion: str) -> float:
    """Take 0.1 s per candidate, so that a step can be interrupted. The score depends on the text alone."""
    time.sleep(0.1)
    return (len(completion) * 7919 % 50) / 10


def dull_kitchens(prompt: str, completion: str) -> float:
    """The same score for whatever is said about a kitchen, so that such a group carries no signal."""
    return 2.0 if "kitchen" in prompt else (len(completion) * 7919 % 50) / 10
