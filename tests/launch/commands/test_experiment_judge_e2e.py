"""The third judge of an experiment on a real engine: vLLM with a tiny random model, on Ray.

The runs are pretended (`worlds/experiment_world.py`); the engine, its journal and the scores are real."""

import json
from pathlib import Path
from typing import NoReturn

import pytest

from dynalign.evaluation.experiments.planted import BIASES
from dynalign.launch.commands.evaluate_opening import Purpose
from dynalign.launch.commands.evaluate_subjects import Subject
from dynalign.launch.commands.experiment_judge import third_judge
from dynalign.launch.commands.experiment_plan import PreparedExperiment
from dynalign.rollout.judges.value_texts import ASPECTS
from tests.worlds.chat_models import tiny_chat_model
from tests.worlds.experiment_world import ExperimentWorld

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

GIVEN = (
    "arms=unified,mean",
    "prompts.max_tokens=1400",
    "judge.min_digit_mass=0.0",
    "rollout.kv_cache_gib=0.2",
)


class RealThirdJudge(ExperimentWorld):
    """A world whose third judge is asked on an engine of our own, once."""

    def judge(self, made: PreparedExperiment) -> None:
        self.judged += 1
        third_judge(made, None if self.judged == 1 else never)


def never(who: Subject, purpose: Purpose) -> NoReturn:
    pytest.fail(f"{who.name} is opened again")


def test_a_local_model_scores_all_answers_and_those_with_a_planted_bias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    tiny_chat_model(tmp_path / "model")
    world = RealThirdJudge(tmp_path)
    assert world.call("rubric", *GIVEN, small=True) == 0
    judged = json.loads(world.files.judged.read_text())["scores"]
    planted = json.loads(world.files.planted.read_text())["scores"]
    assert len(judged) == 2 * 3 * 8
    assert all(0.0 <= score <= 5.0 for score in judged.values())
    assert len(planted) == 3 * 8 * (1 + len(BIASES))
    assert all(set(by_rubric) == {"whole", *ASPECTS} for by_rubric in planted.values())
    report = json.loads(world.files.report("json").read_text())
    levels = {table["measure"]["name"]: table["levels"] for table in report["measures"]}
    assert set(levels["judged"]) == set(levels["bias_lift"]) == {"unified", "mean"}
    kept = world.files.planted.read_bytes()
    assert world.call("rubric", *GIVEN, small=True) == 0
    assert (world.judged, world.files.planted.read_bytes()) == (2, kept)
