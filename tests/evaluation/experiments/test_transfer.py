"""Gains on three sets of prompts and the gaps between them, from planted figures."""

import numpy as np
import pytest

from dynalign.evaluation.experiments.run_figures import RunFigures, RunOutcome
from dynalign.evaluation.experiments.transfer import transfer_figures, transfer_sentences, unpaired_gap

DONE = RunOutcome("finished", 4, 60.0)


def runs(home: float, foreign: float, noise: float, seeds: int = 4) -> list[RunFigures]:
    rng = np.random.default_rng(2)
    found = []
    for seed in range(seeds):
        gains = {f"home-{n}": home + noise * rng.normal() for n in range(20)}
        gains |= {f"foreign-{n}": foreign + noise * rng.normal() for n in range(30)}
        by_prompt = {"heldout_gain": gains, "heldout_prompted_gain": gains}
        found.append(RunFigures("trained", seed, DONE, by_prompt, {"trained_gain": home + 0.5 + 0.01 * seed}))
    return found


def test_a_planted_gap_is_found_and_equal_gains_are_shown_to_be_close() -> None:
    apart = list(transfer_sentences(transfer_figures(runs(1.0, 0.2, 0.3)), 0.25))
    assert apart[0].startswith("Trained less held-out, with the system prompt, gain: +0.")
    assert apart[0].endswith("the first gains more.")
    assert apart[1].startswith("Foreign less held-out, without the system prompt, gain: −0.")
    assert apart[1].endswith("the first gains less.")
    close = list(transfer_sentences(transfer_figures(runs(1.0, 1.0, 0.2)), 0.25))
    assert close[1].endswith("the gains are at most 0.25 apart.")
    unsure = list(transfer_sentences(transfer_figures(runs(1.0, 1.0, 3.0)), 0.25))
    assert unsure[1].endswith("inconclusive.")


def test_one_run_is_inconclusive() -> None:
    figures = transfer_figures(runs(1.0, 0.5, 0.1, seeds=1))
    assert all(each.gain is None for each in (*figures.sets, *figures.gaps))
    assert list(transfer_sentences(figures, 0.25))[0].endswith("inconclusive, fewer than two runs have both.")


def test_the_interval_of_a_gap_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    times = 300
    held = 0
    for _ in range(times):
        seeds = 0.3 * rng.normal(size=(4, 1))
        first = seeds + 0.5 * rng.normal(size=(1, 12)) + rng.normal(size=(4, 12))
        second = 0.5 * rng.normal(size=(1, 20)) + rng.normal(size=(4, 20))
        gap = unpaired_gap(first.tolist(), second.tolist())
        assert gap is not None
        estimate = gap.estimate
        assert estimate.low is not None
        assert estimate.high is not None
        held += estimate.low <= 0.0 <= estimate.high
    assert held / times == pytest.approx(0.95, abs=0.05)
