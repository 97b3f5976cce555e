"""The third judge of an experiment: all arms' answers are scored once, and compared by these scores."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dynalign.configs.errors import RecordError, UserError
from dynalign.endpoint.base import Question
from dynalign.evaluation.experiments import verifiable_value
from dynalign.evaluation.experiments.planted import BIASES, PRAISE
from dynalign.launch.commands.evaluate_opening import Purpose
from dynalign.launch.commands.evaluate_subjects import Subject
from dynalign.launch.commands.experiment_judge import third_judge
from dynalign.launch.commands.experiment_plan import PreparedExperiment
from dynalign.rollout.judges.respondents import AskedModel
from dynalign.rollout.judges.value_texts import ASPECTS
from tests.launch.test_preflight import paper_model
from tests.worlds.experiment_world import ExperimentWorld
from tests.worlds.product import ROOT
from tests.worlds.scripted_askers import ScriptedAsker, sure

ARMS = ("unified", "mean", "min")
CHOSEN = f"arms={','.join(ARMS)}"
ANSWERS = len(ARMS) * 3 * 8
PLANTED = 3 * 8 * (1 + len(BIASES)) * (1 + len(ASPECTS))
"""Questions about answers with a planted bias: of three seeds and eight prompts, by every rubric."""


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
    assert len(world.asker.questions) == ANSWERS + PLANTED
    report = json.loads(world.files.report("json").read_text())
    primary = report["measures"][0]
    assert primary["measure"]["name"] == "judged"
    by_arm = {each["arm"]: each["found"]["mean"] for each in primary["differences"]}
    # The pretended runs give the same answers before and after, so that a loss could not be seen.
    assert primary["baseline gain"] == 0.0
    assert [each["verdict"] for each in primary["differences"] if each["arm"] == "min"] == ["inconclusive"]
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
    assert len(world.asker.questions) == ANSWERS + PLANTED, "the scores are kept"


def test_only_what_has_no_score_is_asked_and_another_judge_is_refused(world: JudgedWorld) -> None:
    world.call("rubric", CHOSEN, small=True)
    kept = json.loads(world.files.judged.read_text())
    for key in list(kept["scores"])[:5]:
        del kept["scores"][key]
    world.files.judged.write_text(json.dumps(kept))
    world.call("rubric", CHOSEN, small=True)
    assert len(world.asker.questions) == ANSWERS + PLANTED + 5
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


def fooled_by_praise(question: Question) -> tuple[float, ...]:
    """Grade 2, and 4 for praise by the rubric of the whole and by that of knowledge, read from its text."""
    text = str(question.messages)
    fooled = PRAISE in text and not any(f"rubric of {name}" in text for name in ("power", "vitality"))
    return sure(4 if fooled else 2)


def test_a_planted_bias_is_scored_by_each_arm_s_rubric_on_the_same_answers(world: JudgedWorld) -> None:
    values = world.folder / "values"
    shutil.copytree(ROOT / "rollout" / "values", values)
    for name in ASPECTS:
        (values / f"rubric_{name}.txt").write_text(f"rubric of {name}")
    world.asker.says = fooled_by_praise
    assert world.call("rubric", CHOSEN, f"judge.values={values}", small=True) == 0
    report = json.loads(world.files.report("json").read_text())
    tables = {table["measure"]["name"]: table for table in report["measures"]}
    # One of three biases raises the whole by 2 points, two of the four aspects, and not the lowest one.
    levels = {arm: level["mean"] for arm, level in tables["bias_lift"]["levels"].items()}
    assert levels == pytest.approx({"unified": 2 / 3, "mean": 1 / 3, "min": 0.0})
    assert tables["self_praise_lift"]["levels"]["mean"]["mean"] == pytest.approx(1.0)
    assert tables["verbosity_lift"]["levels"]["unified"]["mean"] == 0.0
    assert [each["found"]["prompts"] for each in tables["bias_lift"]["differences"]] == [8, 8]
    said = [sentence for sentence in report["conclusion"] if "planted bias" in sentence]
    assert said[0].startswith("Lift by planted bias, one score: +0.67 (")
    assert said[2].startswith("Lift by planted bias, lowest aspect against one score: ")
    assert "Lift by planted bias" in world.files.report("html").read_text()


def test_where_the_value_is_counted_functions_judge_and_nobody_is_asked(world: JudgedWorld) -> None:
    settings = ("judge.kind=function", "judge.function=dynalign.rollout.judges.reward_functions:short_words")
    assert world.call("rubric", CHOSEN, *settings, "judge.noise_fraction=0.0", small=True) == 0
    assert world.asker.questions == []
    report = json.loads(world.files.report("json").read_text())
    levels = {
        table["measure"]["name"]: {arm: level["mean"] for arm, level in table["levels"].items()}
        for table in report["measures"]
    }
    # The bias is worth half of the scale to the one judge, and half of one of four aspects to the other.
    assert levels["bias_lift"]["mean"] < 0 < levels["bias_lift"]["unified"]
    answer = "Answer of unified-s0 to 0."
    assert report["runs"][0]["by prompt"]["judged"]["h0"] == pytest.approx(verifiable_value.whole("", answer))
