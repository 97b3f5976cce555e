"""The harness's verdicts are its own, and its traps do not reach a user."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval.tasks
import nltk
import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from dynalign.configs.errors import UserError
from dynalign.evaluation.suites.harness import HarnessTask
from dynalign.evaluation.suites.items import OWN
from dynalign.evaluation.suites.tasks import AIME, GPQA, IFEVAL, QUICK, SAFETY, SuiteTask
from tests.worlds import suite_items

ANSWERS = {
    "ifeval": [
        "No commas here.",
        "sea and sky are here in english",
        "* one\n* two\n* three",
        "One two three.",
    ],
    "gpqa_diamond": [
        "The answer is (RIGHT).",
        "I would pick (RIGHT)",
        "(WRONG)",
        "None of them.</s> (RIGHT)",
    ],
    "aime25": ["\\boxed{60}", "It is $61$.", "The answer is 62.", "63\nQuestion: 4"],
}
"""Right ones, wrong ones, and what the harness reads in one way only."""


class FixedModel(LM):
    """The harness's own kind of model, with given answers in the order of the items."""

    def __init__(self, answers: Sequence[str]) -> None:
        super().__init__()
        self.answers = answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        texts = [filled(self.answers[each.doc_id], each.args[0]) for each in requests]
        return [
            self.cut(text, each.args[1].get("until") or [])
            for text, each in zip(texts, requests, strict=True)
        ]

    @staticmethod
    def cut(text: str, until: Sequence[str]) -> str:
        for stop in until:
            text = text.split(stop)[0]
        return text

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise NotImplementedError


def filled(answer: str, question: str) -> str:
    """GPQA's options are in a drawn order, so an answer to it is given by what it says."""
    letter = next((each for each in "ABCD" if f"({each}) right" in question), "")
    return answer.replace("RIGHT", letter).replace("WRONG", "A" if letter == "B" else "B")


def librarys_scores(task: SuiteTask, file: Path, answers: Sequence[str]) -> list[float]:
    """By the harness's whole loop, on a file that it loads itself.

    It draws GPQA's options whenever it reads its items; datasets' cache gives it the first order again."""
    config: Any = load_yaml(Path(lm_eval.tasks.__file__).parent / task.yaml)
    config.pop("tag", None)
    names = ("training", "validation", "test", "fewshot")
    splits = {config.get(f"{name}_split") for name in names} - {None}
    given = {"data_files": dict.fromkeys(splits, str(file)), "cache_dir": str(file.parent / "cache")}
    config |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": given}
    found: Any = simple_evaluate(
        model=FixedModel(answers),
        tasks=[ConfigurableTask(config=config)],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    (samples,) = found["samples"].values()
    kept = [each for each in samples if each["filter"] == task.answer_filter]
    return [float(each[task.metric]) for each in sorted(kept, key=lambda each: int(each["doc_id"]))]


@pytest.mark.parametrize("task", [IFEVAL, GPQA, AIME], ids=lambda task: task.name)
def test_verdicts_on_fixed_answers_are_those_of_the_harness_s_own_loop(
    task: SuiteTask, tmp_path: Path
) -> None:
    rows = suite_items.rows_of_task(task.name)
    answers = ANSWERS[task.name]
    prepared = HarnessTask(task, rows)
    given = [filled(answer, item.question) for answer, item in zip(answers, prepared.items, strict=True)]
    found = prepared.scores(given)
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    assert found == librarys_scores(task, file, answers)
    assert {0.0, 1.0} <= set(found)


@pytest.mark.parametrize("task", QUICK, ids=lambda task: task.name)
def test_our_own_items_are_the_same_every_time_and_can_be_solved(task: SuiteTask) -> None:
    rows = OWN[task.name]()
    prepared = HarnessTask(task, rows)
    assert [each.question for each in HarnessTask(task, rows).items] == [
        each.question for each in prepared.items
    ]
    if task.name == "arithmetic":
        assert set(prepared.scores([row["answer"] for row in rows])) == {1.0}
    if task.name == "knowledge":
        pairs = zip((row["Correct Answer"] for row in rows), prepared.items, strict=True)
        letters = [next(x for x in "ABCD" if f"({x}) {right}\n" in item.question) for right, item in pairs]
        assert set(prepared.scores(letters)) == {1.0}
        assert sum(score or 0 for score in prepared.scores(["A"] * len(rows))) == pytest.approx(30, abs=15)


def test_gpqa_reads_any_form_of_a_letter_where_strict_match_reads_one() -> None:
    prepared = HarnessTask(GPQA, suite_items.GPQA)
    answers = [filled("So I take (RIGHT)", item.question) for item in prepared.items]
    assert prepared.scores(answers) == [1.0] * 4
    assert all("The answer is (X)" in item.question for item in prepared.items)


def test_aime_asks_for_the_box_without_which_a_sentence_is_wrong() -> None:
    prepared = HarnessTask(AIME, suite_items.AIME)
    assert all("\\boxed{}" in item.question for item in prepared.items)
    assert prepared.scores(["The answer is 60.", "So \\boxed{61}", None, ""]) == [0.0, 1.0, None, 0.0]


def test_without_nltks_table_a_set_that_needs_it_is_refused_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(UserError, match="punkt_tab; it is missing; name a folder in NLTK_DATA"):
        HarnessTask(IFEVAL, [*suite_items.IFEVAL, suite_items.SENTENCES])
    assert HarnessTask(IFEVAL, suite_items.IFEVAL).items
    assert "punkt" not in "".join(capfd.readouterr())


def test_with_nltks_table_sentences_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "tokenizers" / "punkt_tab" / "english"
    table.mkdir(parents=True)
    for name in ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"):
        (table / name).write_text("")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    prepared = HarnessTask(IFEVAL, [suite_items.SENTENCES] * 2)
    assert prepared.scores(["One. Two.", "One. Two. Three. Four."]) == [1.0, 0.0]


@pytest.mark.parametrize("task", SAFETY, ids=lambda task: task.name)
def test_every_safety_task_is_asked_and_judged(task: SuiteTask) -> None:
    prepared = HarnessTask(task, suite_items.rows_of_task(task.name))
    if task.kind == "text":
        assert prepared.scores(["Can't be determined", "The grandson", ""]) == [1.0, 0.0, 0.0]
        return
    assert all(item.question.endswith(task.suffix) for item in prepared.items)
    by_label = [
        prepared.scores([item.labels[place] for item in prepared.items])
        for place in range(len(prepared.items[0].labels))
    ]
    assert {sum(scores) for scores in zip(*by_label, strict=True)} == {1.0}  # type: ignore[arg-type]
    assert set(prepared.scores(["" for _ in prepared.items])) == {0.0}


def test_the_options_of_a_listed_question_are_drawn() -> None:
    rows = suite_items.SAFETY["truthfulqa_mc1"][:1] * 60
    task = next(each for each in SAFETY if each.name == "truthfulqa_mc1")
    right = [item.labels[0] for item in HarnessTask(task, rows).items]
    assert all(right.count(letter) > 8 for letter in "ABC")


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        (IFEVAL, [{"question": "?"}]),
        (GPQA, [{"Question": "?"}]),
        (AIME, [{"text": "?"}]),
        (SAFETY[0], [{"a": 1}]),
    ],
    ids=lambda value: value.name if isinstance(value, SuiteTask) else "",
)
def test_items_of_another_set_are_refused_in_one_line(task: SuiteTask, rows: suite_items.Rows) -> None:
    with pytest.raises(UserError) as refused:
        HarnessTask(task, rows)
    (mistake,) = refused.value.mistakes
    assert task.source.path in mistake.rule
    assert "\n" not in str(mistake)
