"""`dynalign evaluate suite`: what it says before it asks, its table and files, wrong input."""

import json
from pathlib import Path
from typing import Any

import pytest

from dynalign.configs.errors import UserError
from dynalign.endpoint.base import Question
from dynalign.evaluation.suites.items import OWN
from dynalign.evaluation.suites.tasks import SUITES, TASKS
from dynalign.launch.commands.evaluate_suite import SuiteOptions, evaluate_suite
from tests.worlds.suite_items import RuleModel, write_items

SUMS = {row["problem"]: row["answer"] for row in OWN["arithmetic"]()}


def solved(question: Question) -> str:
    """The sum, boxed in words or not at all; lowercase words for everything else."""
    return SUMS.get(question.messages[0].content.split("\n")[0], "all of this is plain english text")


def endpoint(folder: Path, name: str, **prices: float) -> str:
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps({"address": "http://127.0.0.1:9/v1", "model": name} | prices))
    return str(file)


def said(tmp_path: Path, open_subject: Any, **options: Any) -> list[str]:
    lines: list[str] = []
    given = {"model": endpoint(tmp_path, "tiny"), "out": str(tmp_path / "out")} | options
    assert evaluate_suite(SuiteOptions(**given), open_subject, lines.append) == 0
    return "\n".join(lines).split("\n")


def test_a_model_against_itself_under_two_names_has_lost_nothing_that_was_measured(tmp_path: Path) -> None:
    model = RuleModel(solved, choose=2)
    other = endpoint(tmp_path, "base", input_price=1.0, output_price=2.0)
    lines = said(tmp_path, model.opened, suite="quick", against=other)
    assert [line.split(":")[0] for line in lines[:3]] == [task.title for task in SUITES["quick"]]
    assert all(" power to show that less than 10 points were lost" in line for line in lines[:3])
    assert lines[3].startswith("each model: 240 questions, 240 answers; at most ")
    assert lines[4].startswith("base: at most 0.11, in the currency")
    assert lines[5].startswith("| task | tiny | base | difference, points | lost at most | margin | p (Holm)")
    arithmetic = next(line for line in lines if line.startswith("| Arithmetic"))
    assert arithmetic.startswith("| Arithmetic | 100.0 (")
    assert "| non-inferior |" in arithmetic
    assert len(model.questions) == 480
    found = json.loads((tmp_path / "out" / "suite-quick.json").read_text())
    assert found["tasks"][2]["loss"]["difference"]["mean"] == 0.0
    assert found["tasks"][2]["of_model"]["score"]["n"] == 60


def test_a_model_that_has_lost_its_sums_is_inferior_and_the_loss_has_a_minus(tmp_path: Path) -> None:
    models = iter((RuleModel(lambda _: "I do not know", choose=0), RuleModel(solved, choose=0)))
    lines = said(
        tmp_path, lambda *_: next(models).opened(), suite="quick", against=endpoint(tmp_path, "base")
    )
    arithmetic = next(line for line in lines if line.startswith("| Arithmetic"))
    assert "| inferior |" in arithmetic
    assert "| -100.0 (" in arithmetic


def test_who_can_do_nothing_has_nothing_to_lose(tmp_path: Path) -> None:
    model = RuleModel(lambda _: "I do not know", choose=1)
    lines = said(tmp_path, model.opened, suite="quick", against=endpoint(tmp_path, "base"))
    rows = {line.split(" |")[0]: line for line in lines if line.startswith("| ")}
    for title in ("Arithmetic", "Knowledge"):  # 0 of 60, and one option of four whatever is asked
        assert "| inconclusive |" in rows[f"| {title}"]
        assert "the other model scores too little to lose the margin" in rows[f"| {title}"]
        assert "+0.0 (" in rows[f"| {title}"]


def test_less_of_a_bad_behaviour_is_better(tmp_path: Path) -> None:
    models = iter((RuleModel(lambda _: "", choose=1), RuleModel(lambda _: "", choose=0)))
    data = str(write_items(tmp_path / "data"))
    only = ("power_seeking", "corrigible_more")
    lines = said(
        tmp_path,
        lambda *_: next(models).opened(),
        suite="safety",
        only=only,
        data=data,
        against=endpoint(tmp_path, "base"),
    )
    seeking = next(line for line in lines if line.startswith("| Power-seeking ↓"))
    assert "| -100.0 (" in seeking
    assert "| 4.6 |" in seeking  # of three items
    corrigible = next(line for line in lines if line.startswith("| Corrigible"))
    assert "| -100.0 (" in corrigible
    assert "| 100 |" in corrigible
    assert "↓: less of it is better." in lines


def test_without_another_model_the_table_has_scores_alone(tmp_path: Path) -> None:
    lines = said(tmp_path, RuleModel(solved).opened, suite="quick", only=("arithmetic",))
    assert lines[0].startswith("each model: 60 questions")
    assert lines[1:4] == [
        "| task | score | notes |",
        "| --- | --- | --- |",
        "| Arithmetic | 100.0 (93.7 to 100.0) | 60 items |",
    ]


def test_changes_reach_the_questions(tmp_path: Path) -> None:
    model = RuleModel(solved)
    changes = ("arithmetic.repeats=3", "arithmetic.margin=5", "arithmetic.max_tokens=9")
    lines = said(
        tmp_path, model.opened, suite="quick", only=("arithmetic",), changes=changes, limit=7, temperature=0.9
    )
    assert lines[0].startswith("each model: 7 questions, 21 answers; at most ")
    assert lines[0].endswith("and 189 to write")
    assert {(each.n, each.max_tokens, each.temperature) for each in model.questions} == {(3, 9, 0.9)}


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ({"suite": "papr"}, "suite = 'papr': is no suite; did you mean"),
        ({"only": ("gpqa",)}, "--task = 'gpqa': is no task; there are: instructions,"),
        ({"model": None}, "evaluate suite: names no model to test; give a run, or --model"),
        ({"model": "nowhere/model-x"}, "model"),
        ({"changes": ("ifeval.margin=4",)}, "names no task that is asked; write TASK.margin=5"),
        ({"changes": ("arithmetic.margin=-1",)}, "is no change of a task; set margin"),
        ({"changes": ("knowledge.repeats=4",)}, "repeats a task whose answer is the likeliest label"),
        ({"data": "/no/such/folder", "suite": "paper"}, "--data = '/no/such/folder': is no folder"),
    ],
)
def test_wrong_input_is_a_line_and_nothing_is_asked(
    tmp_path: Path, options: dict[str, Any], mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = {"suite": "quick", "model": endpoint(tmp_path, "tiny"), "out": str(tmp_path / "out")} | options
    with pytest.raises(UserError) as refused:
        evaluate_suite(SuiteOptions(**given), None)
    assert any(mistake in str(each) for each in refused.value.mistakes)
    assert not (tmp_path / "out").exists()


def test_the_model_itself_is_no_other_model(tmp_path: Path) -> None:
    model = endpoint(tmp_path, "tiny")
    with pytest.raises(UserError, match="is the model under test itself"):
        evaluate_suite(SuiteOptions("quick", model=model, against=model, out=str(tmp_path / "out")), None)


def test_each_missing_or_broken_set_is_named_with_the_way_to_provide_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "ifeval.jsonl").write_text('{"key": 1')
    (data / "gpqa_diamond.csv").write_text("Question,Answer\nWhy?,So\n")
    (data / "aime25.json").write_text("[]")
    with pytest.raises(UserError) as refused:
        evaluate_suite(SuiteOptions("paper", model=endpoint(tmp_path, "tiny"), data=str(data)), None)
    lines = [str(each) for each in refused.value.mistakes]
    assert len(lines) == 3
    assert all("\n" not in line for line in lines)
    assert "ifeval.jsonl" in lines[0]
    assert "cannot be read" in lines[0]
    assert "the items of gpqa_diamond: are not those of Idavidrein/gpqa" in lines[1]
    assert "has no items; put its split test into the --data folder as aime25.jsonl" in lines[2]


def test_every_task_of_a_suite_is_known_by_its_name() -> None:
    assert set(TASKS) == {task.name for suite in SUITES.values() for task in suite}
    assert len(TASKS) == sum(map(len, SUITES.values()))
