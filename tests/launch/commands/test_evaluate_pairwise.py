import json
import re
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.launch.cli import dynalign, run_command
from dynalign.launch.commands.evaluate_pairwise import PairwiseOptions, evaluate_pairwise
from tests.worlds.evaluated_models import (
    Opened,
    Speaks,
    always_first,
    answers_with,
    endpoint,
    nonsense,
    prefers_quality,
)


def options(folder: Path, *judges: str, **changes: object) -> PairwiseOptions:
    """Of `better` against `worse`, on 12 shipped prompts."""
    values: dict[str, object] = {
        "model": endpoint(folder, "better"),
        "against": endpoint(folder, "worse"),
        "judges": tuple(endpoint(folder, judge) for judge in judges or ("judge",)),
        "limit": 12,
        "out": str(folder / "card"),
        "runs": str(folder),
    }
    return PairwiseOptions(**(values | changes))  # type: ignore[arg-type]


def evaluated(opened: Opened, asked: PairwiseOptions, folder: Path) -> dict[str, object]:
    assert evaluate_pairwise(asked, opened) == 0
    card: dict[str, object] = json.loads((folder / "card" / "evaluation.json").read_text())
    return card


def opened(better: Speaks, worse: Speaks, **judges: Speaks) -> Opened:
    return Opened(better=better, worse=worse, **(judges or {"judge": prefers_quality}))


def test_a_planted_better_model_wins_and_the_card_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = opened(answers_with(4), answers_with(2))
    card = evaluated(models, options(tmp_path), tmp_path)
    rate = card["figures"]["win_rate"]  # type: ignore[index]
    assert (rate["mean"], rate["high"], rate["n"]) == (1.0, 1.0, 12)
    assert rate["low"] == pytest.approx(12 / (12 + 2.201**2), abs=1e-3)  # Wilson's, where all units are won
    said = capsys.readouterr().out
    assert "win rate 100.0 % (71.2 to 100.0), 12 units, judged by judge: better is preferred" in said
    assert models.most_open == 1
    assert [name for name, _ in models.opened] == ["better", "worse", "judge"]
    assert len(models.askers["judge"].questions) == 24
    page = (tmp_path / "card" / "evaluation.html").read_text()
    assert "better against worse" in page
    assert not re.search(r"(src|href)=|https?://|<script", page)
    table = (tmp_path / "card" / "evaluation.md").read_text()
    assert "| preference over the base | 87.2 %, one judge, no interval | 100.0 %" in table


def test_equal_models_straddle_50_percent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def now_and_then(question: object) -> str:
        return answers_with(sum(map(ord, question.messages[-1].content)) % 3)(question)  # type: ignore

    def otherwise(question: object) -> str:
        return answers_with(sum(map(ord, question.messages[-1].content[::2])) % 3)(question)  # type: ignore

    card = evaluated(opened(now_and_then, otherwise), options(tmp_path, limit=50), tmp_path)
    rate = card["figures"]["win_rate"]  # type: ignore[index]
    assert rate["low"] < 0.5 < rate["high"]
    assert "inconclusive: the interval holds 50 %" in capsys.readouterr().out


def test_a_judge_that_says_first_and_one_that_answers_nonsense_are_called_unusable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = opened(answers_with(4), answers_with(2), first=always_first, odd=nonsense)
    figures = evaluated(models, options(tmp_path, "first", "odd"), tmp_path)["figures"]
    assert figures["win_rate"]["mean"] == 0.5  # type: ignore[index]
    first, odd = figures["judges"]  # type: ignore[index]
    assert first["position"]["bias"]["mean"] == 0.5
    assert (odd["win_rate"], odd["counts"]["unread"]) == (None, 24)
    assert "odd is unusable as a judge here: 24 of its 24 answers cannot be read" in capsys.readouterr().out


def test_internalization_aspects_transfer_and_an_external_measure_stand_on_one_card(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.jsonl"
    rows = [{"prompt": f"Foreign question {index}?", "goal": f"g{index // 2}"} for index in range(8)]
    foreign.write_text("\n".join(map(json.dumps, rows)))
    outside = tmp_path / "encourage_learning.csv"
    outside.write_text(
        "prompt,subject_response,score\n"
        + "".join(f"test {index},quality {index % 5} for you,{index % 5 * 2}\n" for index in range(10))
    )
    models = opened(answers_with(3), answers_with(1, prompted=2))
    asked = options(
        tmp_path,
        prompts=("builtin", str(foreign)),
        internalization=True,
        aspects=True,
        external=str(outside),
    )
    card = evaluated(models, asked, tmp_path)
    table = card["internalization"]
    assert table["base_prompted"]["mean"] == 1.0  # type: ignore[index]
    assert table["difference"]["mean"] == -0.5  # type: ignore[index]
    transfer = {Path(each["source"]).name: each for each in card["transfer"]}  # type: ignore[attr-defined]
    assert transfer["foreign.jsonl"]["win_rate"]["n"] == 4  # goals
    assert transfer["foreign.jsonl"]["gap"]["mean"] == 0.0
    (scored,) = card["aspects"]  # type: ignore[misc]
    assert [each["aspect"] for each in scored["results"]][0] == "whole"
    assert {each["change"]["mean"] for each in scored["results"]} == {2.0}
    external = card["external"]["judge"]  # type: ignore[index]
    assert [(each["dimension"], each["items"]) for each in external] == [
        ("encourage_learning", 10),
        ("all", 10),
    ]
    assert external[0]["correlation"]["mean"] == pytest.approx(1.0)
    assert "Internalization" in (tmp_path / "card" / "evaluation.html").read_text()


def test_every_mistake_is_a_line_and_nothing_is_opened(tmp_path: Path) -> None:
    models = opened(answers_with(1), answers_with(1))
    same = endpoint(tmp_path, "better")
    asked = options(tmp_path, model=same, against=same, judges=(), prompts=(str(tmp_path / "absent.jsonl"),))
    with pytest.raises(UserError) as caught:
        evaluate_pairwise(asked, models)
    lines = str(caught.value).splitlines()
    assert any(line.startswith("--against") and "is the model under test itself" in line for line in lines)
    assert any(line.startswith("--judge: is missing") for line in lines)
    assert any("absent.jsonl" in line for line in lines)
    assert models.opened == []
    assert not (tmp_path / "card").exists()


def test_a_model_that_is_no_chat_model_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="has no chat template"):
        evaluate_pairwise(options(tmp_path, model=str(plain)), opened(answers_with(1), answers_with(1)))


def test_an_endpoint_file_with_a_wrong_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text("address: http://x/v1\nmodell: x\n")
    with pytest.raises(UserError) as caught:
        evaluate_pairwise(options(tmp_path, model=str(file)), opened(answers_with(1), answers_with(1)))
    assert "--model modell = 'x'" in str(caught.value)
    assert "--model model: field required" in str(caught.value)


def test_the_command_line_reaches_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(dynalign, ["evaluate", "pairwise", "--runs", str(tmp_path)]) == 2
    assert "evaluate pairwise: names no model to test; give a run, or --model" in capsys.readouterr().err


def test_what_a_suite_found_stands_beside_the_paper_s_table(tmp_path: Path) -> None:
    folder = tmp_path / "card"
    folder.mkdir()
    score = {"mean": 0.41, "low": 0.37, "high": 0.45, "n": 541}
    task = {"name": "ifeval", "title": "IFEval, strict", "of_model": {"score": score}}
    task |= {"of_other": {"score": score}, "loss": {"verdict": "non-inferior"}}
    (folder / "suite-paper.json").write_text(json.dumps({"tasks": [task]}))
    (folder / "suite-odd.json").write_text("[]")
    evaluated(opened(answers_with(4), answers_with(2)), options(tmp_path), tmp_path)
    table = (folder / "evaluation.md").read_text()
    assert "41.0 % (37.0 to 45.0), the other 41.0 % (37.0 to 45.0): non-inferior" in table
    assert table.count("not asked: `dynalign evaluate suite`") == 2


def test_two_judges_of_one_name_stay_two(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twins = (endpoint(tmp_path, "judge"), endpoint(tmp_path / "other", "judge", "http://127.0.0.1:2/v1"))
    models = opened(answers_with(4), answers_with(2), **{"judge": prefers_quality, "judge (2)": always_first})
    figures = evaluated(models, options(tmp_path, judges=twins), tmp_path)["figures"]
    assert [each["judge"] for each in figures["judges"]] == ["judge", "judge (2)"]  # type: ignore[index]
    assert figures["agree_JJ"][0][1] == 0.5  # type: ignore[index]
