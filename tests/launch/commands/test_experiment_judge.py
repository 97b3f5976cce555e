"""The third judge of an experiment: all arms' answers are scored once, and compared by these scores."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dynalign.configs.errors import RecordError, UserError
from dynalign.endpoint.base import Question
from dynalign.launch.commands.evaluate_opening import Purpose
from dynalign.launch.commands.evaluate_subjects import Subject
from dynalign.launch.commands.experiment_judge import third_judge
from dynalign.launch.commands.experiment_plan import PreparedExperiment
from dynalign.rollout.judges.respondents import AskedModel
from tests.launch.test_preflight import paper_model
from tests.worlds.experiment_world import ExperimentWorld
from tests.worlds.scripted_askers import ScriptedAsker

ARMS = ("unified", "mean", "min")
CHOSEN = f"arms={','.join(ARMS)}"
ANSWERS = len(ARMS) * 3 * 8


def likes_mean(question: Question) -> tuple[float, ...]:
    """Grade 4 for the answers of one arm, and 2 for the others, with the rest of the mass one grade below."""
    best = 4 if "Answer of mean-s" in str(question.messages) else 2
    return tuple(-0.1 if grade == best else -2.5 if grade == best - 1 else -30.0 for grade in range(6))


class JudgedWorld(ExperimentWorld):
    """A world whose third judge is asked."""

    asker: ScriptedAsker

    def judge(self, made: PreparedExperiment) -> None:
        @asynccontextmanager
        async def opened(who: Subject, purpose: Purpose) -> AsyncIterator[AskedModel]:
            assert purpose == "judge"
            yield AskedModel(self.asker, who.name)

        third_judge(made, opened)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JudgedWorld:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    made = JudgedWorld(tmp_path)
    made.asker = ScriptedAsker(likes_mean)
    return made


def test_answers_of_all_arms_are_scored_once_and_arms_are_compared_by_these_scores(
    world: JudgedWorld,
) -> None:
    assert world.call("rubric", CHOSEN, small=True) == 0
    assert len(world.asker.questions) == ANSWERS
    report = json.loads(world.files.report("json").read_text())
    primary = report["measures"][0]
    assert primary["measure"]["name"] == "judged"
    by_arm = {each["arm"]: each["found"]["mean"] for each in primary["differences"]}
    assert by_arm["mean"] == pytest.approx(2.0, abs=0.01)
    assert by_arm["min"] == 0.0
    of_mean = [run for run in report["runs"] if run["arm"] == "mean"]
    assert [step for step, _ in of_mean[0]["gold"]] == [0, 4]
    assert of_mean[0]["gold"][1][1] == pytest.approx(3.92, abs=0.02)
    assert of_mean[0]["distance"]["4"] == pytest.approx(0.2)
    row = next(line for line in world.files.report("md").read_text().splitlines() if "| 4 | 0.200 |" in line)
    assert row.startswith("| one score | 4 | 0.200 | ")
    assert "Held-out reward by the third judge" in world.files.report("html").read_text()
    assert world.call("rubric", CHOSEN, small=True) == 0
    assert len(world.asker.questions) == ANSWERS, "the scores are kept"


def test_only_what_has_no_score_is_asked_and_another_judge_is_refused(world: JudgedWorld) -> None:
    world.call("rubric", CHOSEN, small=True)
    kept = json.loads(world.files.judged.read_text())
    for key in list(kept["scores"])[:5]:
        del kept["scores"][key]
    world.files.judged.write_text(json.dumps(kept))
    world.call("rubric", CHOSEN, small=True)
    assert len(world.asker.questions) == ANSWERS + 5
    other = paper_model(world.folder / "other")
    (other / "generation_config.json").write_text('{"temperature": 0.5}')
    with pytest.raises(UserError, match="judged_by: model has scored answers of this experiment"):
        world.call("rubric", CHOSEN, f"judged_by={other}", small=True)
    world.started.clear()
    with pytest.raises(UserError, match="^judged_by"):
        world.call("rubric", CHOSEN, "judged_by=nowhere.yaml", small=True, out=str(world.folder / "new"))
    assert world.started == []
    world.files.judged.write_text("{}")
    with pytest.raises(RecordError, match="holds no scores"):
        world.call("rubric", CHOSEN, small=True)
