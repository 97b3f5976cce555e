import csv
import gzip
import json
import random
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.launch.cli import dynalign, run_command
from dynalign.launch.commands.prompts_check import prompts_check
from dynalign.rollout.prompt_sources import RowForm
from dynalign.rollout.prompts import load_prompts
from tests.worlds.planted_edits import composed, disguised, edited


def written(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))


def test_a_check_names_near_duplicates_and_leaks_by_their_places_and_writes_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    texts = composed(20, chance)
    heldout = load_prompts("builtin").heldout[3].prompt
    texts += [edited(texts[4], chance), f"{' '.join(composed(3, chance))} {disguised(heldout, chance)}"]
    source = written(tmp_path / "tasks.jsonl", texts)
    before = sorted(tmp_path.iterdir())
    lines = prompts_check([source], RowForm(), [], None)
    assert sorted(tmp_path.iterdir()) == before
    assert lines[-1].startswith("nothing was written")
    said = "\n".join(lines)
    assert f"{source}:21  prompt 5" in said
    assert f"{source}:22  builtin held-out 4" in said
    row = next(line for line in lines if line.strip().startswith("near-duplicates"))
    assert row.split()[1] == "1"
    assert "272" in next(line for line in lines if line.strip().startswith("prompts"))


def test_each_file_is_a_set_and_is_compared_with_those_before_it(tmp_path: Path) -> None:
    chance = random.Random(8)
    texts = composed(12, chance)
    one = written(tmp_path / "one.jsonl", texts)
    other = written(tmp_path / "other.jsonl", [disguised(texts[0], chance), *composed(5, chance)])
    lines = prompts_check([one, other, one], RowForm(), [], None)
    row = next(line for line in lines if line.strip().startswith("near-duplicates"))
    assert row.split()[1:] == ["0", "1", "0"]
    assert any(f"{other}:1" in line and f"{one} 1" in line for line in lines)
    assert any("Vendi score of 6" in line for line in lines)


def test_the_shipped_prompts_are_checked_without_their_own_held_out_ones() -> None:
    lines = prompts_check(["builtin"], RowForm(), [], None)
    assert [line.split()[-1] for line in lines if "near-duplicates" in line or "evaluation set " in line][
        :2
    ] == [
        "0",
        "0",
    ]


def test_a_named_evaluation_set_is_compared_with(tmp_path: Path) -> None:
    chance = random.Random(9)
    quiz = composed(5, chance)
    against = tmp_path / "quiz.csv"
    with against.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("Question", "answer"), *((text, "x") for text in quiz)])
    source = written(tmp_path / "tasks.jsonl", [*composed(8, chance), f"Please: {quiz[2]}"])
    lines = prompts_check([source], RowForm(), [str(against)], None)
    assert any(f"{source}:9" in line and f"{against} 3" in line for line in lines)


def test_out_gets_a_page_and_the_figures(tmp_path: Path) -> None:
    chats = tmp_path / "chats.jsonl.gz"
    rows = [
        {"messages": [{"role": "user", "content": text}], "domain": "law"}
        for text in composed(9, random.Random(1))
    ]
    chats.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    out = tmp_path / "deep" / "out"
    prompts_check([str(chats)], RowForm("messages"), [], str(out))
    found = json.loads((out / "check.json").read_text(encoding="utf-8"))
    assert [each["texts"] for each in found["sets"]] == [9, 272]
    assert found["sets"][0]["axes"][0]["counts"] == {"law": 9}
    assert "<svg" in (out / "page.html").read_text(encoding="utf-8")


def test_every_mistake_is_one_line_and_the_code_is_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("prompts\nx\n", encoding="utf-8")
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("", encoding="utf-8")
    arguments = [
        "prompts",
        "check",
        str(bad),
        str(empty),
        "absent.jsonl",
        "hub:one",
        "x.doc",
        "--out",
        str(file),
    ]
    assert run_command(dynalign, arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "Traceback" in line] == []
    rules = ["is no folder", "did you mean 'prompts'", "holds no prompt", "absent.jsonl: cannot be read"]
    rules += ["not of the form hub:owner/name:split", "is no known kind of source"]
    assert [rule for rule, line in zip(rules, lines, strict=True) if rule not in line] == []


def test_a_file_of_wrong_rows_ends_in_a_count(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"txt": 1}\n' * 70, encoding="utf-8")
    with pytest.raises(UserError, match="20 more mistakes follow") as error:
        prompts_check([str(path)], RowForm(), [], None)
    assert len(error.value.mistakes) == 51


def test_a_check_without_a_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(dynalign, ["prompts", "check"]) == 2
    assert "FILE" in capsys.readouterr().err


def test_a_misspelt_command_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(dynalign, ["prompts", "chek"]) == 2
    assert "did you mean check?" in capsys.readouterr().err
