"""What a run's folder says about an arm."""

import math
from pathlib import Path

import numpy as np
import pytest

from dynalign.evaluation.experiments.advantage_error import advantage_error
from dynalign.evaluation.experiments.measures import MEASURES
from dynalign.evaluation.experiments.run_figures import (
    RunOutcome,
    aspect_correlation,
    mean_height,
    read_run,
)
from dynalign.run_folder.metrics import read_heldout, read_metrics
from tests.worlds.synthetic_run import synthetic_run

FINISHED = RunOutcome("finished", 12, 160.0)


def test_a_run_is_read_as_it_was_measured_last(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path / "a-s0")
    found = read_run(folder, "a", 0, FINISHED)
    last = [item for item in read_heldout(folder) if item.step == 12]
    assert found.by_prompt["heldout"] == {item.prompt_id: item.score for item in last if not item.prompted}
    assert len(found.by_prompt["heldout_prompted"]) == 8
    gain = found.by_prompt["prompt_gain"]["h3"]
    assert gain == found.by_prompt["heldout_prompted"]["h3"] - found.by_prompt["heldout"]["h3"]
    rows = [row for row in read_metrics(folder) if row["step"] > 0]
    assert found.values["step_s"] == pytest.approx(np.mean([row["step_s"] for row in rows[1:]]))
    assert found.values["no_signal_fraction"] == pytest.approx(
        np.mean([row["no_signal_fraction"] for row in rows])
    )
    assert found.values["gap_change"] == 0.0
    # Scores are drawn with a standard deviation of 0.35.
    assert found.values["reward_variance"] == pytest.approx(0.35**2, rel=0.2)
    assert [step for step, _ in found.curve] == [0, 4, 8, 12]
    assert set(found.values) | set(found.by_prompt) <= set(MEASURES)


def test_a_folder_without_files_has_no_figures(tmp_path: Path) -> None:
    found = read_run(tmp_path, "a", 0, RunOutcome("not started"))
    assert found.by_prompt == {}
    assert found.values == {}


def test_the_height_of_a_curve_is_the_mean_over_its_steps() -> None:
    assert mean_height([(0, 1.0), (2, 3.0), (10, 3.0)]) == pytest.approx((2 * 2 + 8 * 3) / 10)
    assert mean_height([(0, 1.0)]) is None


def test_the_error_of_an_advantage_is_the_jackknife_written_out() -> None:
    scores = [1.0, 2.0, 4.0, 4.5, 0.5]
    squares = []
    for index in range(5):
        without = []
        for left_out in range(5):
            if left_out != index:
                kept = [score for other, score in enumerate(scores) if other != left_out]
                without.append((scores[index] - np.mean(kept)) / (np.std(kept, ddof=1) + 1e-4))
        squares.append(3 / 4 * sum((each - np.mean(without)) ** 2 for each in without))
    assert advantage_error([scores]) == pytest.approx(math.sqrt(np.mean(squares)))


def test_the_error_of_an_advantage_falls_with_the_group_and_needs_four_candidates() -> None:
    rng = np.random.default_rng(0)
    small = advantage_error(rng.normal(size=(200, 4)).tolist())
    large = advantage_error(rng.normal(size=(200, 16)).tolist())
    assert small is not None
    assert large is not None
    assert large < small / 1.5
    assert advantage_error([[1.0, 2.0, 3.0]]) is None
    assert advantage_error([[1.0, 1.0, 1.0, 1.0]]) is None


def test_aspects_are_correlated_within_groups_alone() -> None:
    # Within groups the two aspects go against each other, between groups together.
    groups = [
        {"power": [1.0, 2.0], "vitality": [2.0, 1.0]},
        {"power": [4.0, 5.0], "vitality": [5.0, 4.0]},
    ]
    assert aspect_correlation(groups) == pytest.approx(-1.0)
    assert aspect_correlation([{"power": [1.0, 2.0]}]) is None
