"""What is asked beside the groups, and what it costs a step: in virtual time, on engines that are as slow as
they can be beside it."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from dynalign.configs.schema import RunSettings
from dynalign.run_folder.metrics import read_capability, read_heldout
from tests.worlds.paced_run import ASKED_TOKENS, PacedRun

STEPS = 6
LONGEST_TOKENS = 256


def settings(shape: Sequence[int], **sections: Mapping[str, Any]) -> RunSettings:
    workers, slots, prompts, staleness = shape
    return RunSettings.model_validate(
        {
            "name": "paced",
            "model": "none",
            "steps": STEPS,
            "tensorboard": False,
            "log_level": "error",
            "rollout": {
                "prompts_per_step": prompts,
                "group_size": 8,
                "groups_in_flight": slots,
                "max_completion_tokens": LONGEST_TOKENS,
                "workers": {"min": workers, "max": workers},
            },
            "algorithm": {"max_staleness": staleness},
            "heldout": {"prompts": 0},
            "metrics": {"port": None},
        }
        | sections
    )


RHYTHMS = pytest.mark.parametrize(
    ("shape", "tokens_per_s"),
    [
        ((1, 1, 8, 1), 1000.0),  # generating takes longer than learning
        ((2, 4, 8, 0), 500.0),  # they take turns
        ((4, 4, 8, 2), 10_000.0),  # learning takes longer
    ],
)
"""workers, groups in flight of each, prompts of a step, max_staleness; and tokens per second of an engine."""


@RHYTHMS
def test_steps_take_at_most_a_twentieth_longer_with_the_probe_and_held_out_answers_beside_them(
    shape: Sequence[int], tokens_per_s: float, tmp_path: Path
) -> None:
    probe = {"items": 60, "every_steps": 1}
    heldout = {"prompts": 3, "prompted": False, "every_steps": 1, "waits": False}

    def took(name: str, **sections: Mapping[str, Any]) -> float:
        steps_s = PacedRun(tmp_path / name, settings(shape, **sections), tokens_per_s).live()
        return sum(islice(steps_s, 1, None))

    without_s = took("without")
    # What a step has earned pays for one answer of the next one, which is in these steps then.
    one_answer_s = (ASKED_TOKENS + LONGEST_TOKENS) / tokens_per_s
    assert took("heldout", heldout=heldout) <= 1.05 * without_s + one_answer_s
    assert took("both", heldout=heldout, capability=probe) <= 1.05 * without_s + one_answer_s
    points = read_capability(tmp_path / "both")
    assert sorted(points) == list(range(STEPS))
    assert sum(item.score is not None for point in points.values() for item in point) > 60
    for name in ("heldout", "both"):
        evaluated = {item.step for item in read_heldout(tmp_path / name)}
        assert len(evaluated) >= 3, "the first, the last, and one between"
