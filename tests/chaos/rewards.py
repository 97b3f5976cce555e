"""Reward functions that break the worker that calls them: real deaths, without a hook in the product."""

import os


def breaks_on_knots(prompt: str, completion: str) -> float:
    """Ends its process at once for any prompt about knots."""
    if "knot" in prompt:
        os._exit(13)
    return (len(completion) * 7919 % 50) / 10


def breaks_always(prompt: str, completion: str) -> float:
    os._exit(13)
