"""Random histories of a run: whoever dies or hangs, at whatever await or change of a file, nothing is lost,
nothing is trained twice, nothing is too old, and the run ends."""

from pathlib import Path

import pytest

from tests.worlds.history import History

SEEDS = range(12)
"""The histories of `make test`, about half a second each; any other seed is another history."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_history_of_deaths_and_hangs_loses_nothing_and_trains_nothing_twice(
    seed: int, tmp_path: Path
) -> None:
    History(tmp_path, seed).live()
