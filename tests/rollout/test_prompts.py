import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.configs.errors import UserError
from dynalign.rollout.prompts import (
    SHOWN_MISTAKES,
    DrawnPrompt,
    Prompt,
    PromptOrder,
    PromptSet,
    load_prompts,
)

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = [
    {"id": "a", "prompt": "How do I mend a net?", "domain": "craft", "split": "train"},
    {"id": "b", "prompt": "Ein Gedicht über Brücken — für {name}", "domain": "arts", "split": "heldout"},
    {"id": None, "prompt": "Line one\nline two\u2028still two", "domain": None, "split": None},
]
LOADED = PromptSet(
    train=(
        Prompt("a", "How do I mend a net?", "craft", "train"),
        Prompt("28f525b2563c4383", "Line one\nline two\u2028still two", "", "train"),
    ),
    heldout=(Prompt("b", "Ein Gedicht über Brücken — für {name}", "arts", "heldout"),),
)


def lines_of(error: pytest.ExceptionInfo[UserError]) -> list[str]:
    return str(error.value).splitlines()


def written(folder: Path, content: str | bytes) -> str:
    path = folder / "p.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_the_shipped_prompts_are_many_and_varied_in_length() -> None:
    shipped = load_prompts("builtin")
    words = [len(prompt.prompt.split()) for prompt in (*shipped.train, *shipped.heldout)]
    assert len(words) >= 240
    assert 10 <= min(words) <= 12
    assert 50 <= max(words) <= 60


def test_every_shipped_domain_has_both_splits_and_ids_that_name_it() -> None:
    shipped = load_prompts("builtin")
    train = Counter(prompt.domain for prompt in shipped.train)
    heldout = Counter(prompt.domain for prompt in shipped.heldout)
    assert train.keys() == heldout.keys()
    assert len(train) >= 14
    assert min(train.values()) >= 10
    assert sum(heldout.values()) >= 40
    for prompt in (*shipped.train, *shipped.heldout):
        assert re.fullmatch(rf"{prompt.domain}-\d{{3}}", prompt.id)


def test_no_two_shipped_prompts_share_most_of_their_words() -> None:
    shipped = load_prompts("builtin")
    words_of = {
        prompt.id: frozenset(re.findall(r"\w+", prompt.prompt.lower()))
        for prompt in (*shipped.train, *shipped.heldout)
    }
    close = [
        (one, other)
        for (one, a), (other, b) in combinations(words_of.items(), 2)
        if len(a & b) >= 0.5 * len(a | b)
    ]
    assert close == []


def test_jsonl_gives_back_what_was_written_and_fills_in_what_is_missing(tmp_path: Path) -> None:
    lines = [
        json.dumps({key: value for key, value in row.items() if value is not None}, ensure_ascii=False)
        for row in ROWS
    ]
    content = "\ufeff" + lines[0] + "\r\n\n" + lines[1] + "\n  \n" + lines[2]
    assert load_prompts(written(tmp_path, content)) == LOADED


@pytest.mark.parametrize("kind", ["parquet", "file.arrow", "stream.arrow"])
def test_tables_give_back_what_was_written_and_other_columns_are_ignored(tmp_path: Path, kind: str) -> None:
    table = pa.Table.from_pylist([{**row, "embedding": [0.5]} for row in ROWS])
    path = str(tmp_path / f"p.{kind}")
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        writer = pyarrow.ipc.new_file if kind == "file.arrow" else pyarrow.ipc.new_stream
        with writer(path, table.schema) as sink:
            sink.write_table(table)
    assert load_prompts(path) == LOADED


def test_a_table_with_integer_ids_is_taken(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"id": [7], "prompt": ["x"]}), tmp_path / "p.parquet")
    assert load_prompts(str(tmp_path / "p.parquet")).train == (Prompt("7", "x", "", "train"),)


def test_wrong_lines_are_all_reported_at_once_in_order_and_by_number(tmp_path: Path) -> None:
    lines = [
        b'{"prompt": "fine", "id": "one"}',
        b'{"prompt": "broken"',
        b'{"prompt": "caf\xe9"}',
        b"[1, 2]",
        b'{"text": "no prompt"}',
        b'{"prompt": "  "}',
        b'{"prompt": ["a", "chat"]}',
        b'{"prompt": "other", "id": "one"}',
        b'{"prompt": "fine too", "split": "test"}',
        b'{"prompt": "fine three", "domain": 3, "id": true}',
        b'{"prompt": "half \\ud83d"}',
        b'{"prompt": "same text"}',
        b'{"prompt": "same text"}',
        b'{"prompt": "x", "id": ' + b"1" * 5000 + b"}",
        b"[" * 100_000,
    ]
    source = written(tmp_path, b"\n".join(lines))
    with pytest.raises(UserError) as error:
        load_prompts(source)
    expected = [
        (2, "is not valid JSON"),
        (3, "is not UTF-8"),
        (4, "is a list, not a JSON object"),
        (5, "'prompt' is missing"),
        (6, "'prompt' is empty"),
        (7, "'prompt' is a list, not a text"),
        (8, f"repeats the id of {source}:1"),
        (9, "'split' must be 'train' or 'heldout'"),
        (10, "'id' must be a text or an integer"),
        (10, "'domain' must be a text"),
        (11, "half of a surrogate pair"),
        (14, "is not valid JSON"),
        (15, "is not valid JSON"),
    ]
    assert [mistake.place for mistake in error.value.mistakes] == [
        f"{source}:{number}" for number, _ in expected
    ]
    assert [rule for (_, rule), line in zip(expected, lines_of(error), strict=True) if rule not in line] == []


def test_a_mistake_on_every_line_ends_in_a_count(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="7 more mistakes follow") as error:
        load_prompts(written(tmp_path, '{"text": "x"}\n' * (SHOWN_MISTAKES + 7)))
    assert len(error.value.mistakes) == SHOWN_MISTAKES + 1


@pytest.mark.parametrize("content", ["", "\n\n", '{"prompt": "x", "split": "heldout"}\n'])
def test_a_file_without_a_prompt_to_train_on_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match="no prompt to train on"):
        load_prompts(written(tmp_path, content))


def test_a_wrong_row_of_a_table_is_reported_by_its_number(tmp_path: Path) -> None:
    path = str(tmp_path / "p.parquet")
    pyarrow.parquet.write_table(pa.table({"prompt": ["x", None, "y"]}), path)
    with pytest.raises(UserError) as error:
        load_prompts(path)
    assert [mistake.place for mistake in error.value.mistakes] == [f"{path}:2"]


def test_a_table_without_the_column_is_one_mistake_that_names_its_columns(tmp_path: Path) -> None:
    path = str(tmp_path / "p.parquet")
    pyarrow.parquet.write_table(pa.table({"question": ["x"] * 100}), path)
    with pytest.raises(UserError, match=r"= \['question'\]: has no column 'prompt'"):
        load_prompts(path)


@pytest.mark.parametrize("name", ["p.parquet", "p.arrow"])
@pytest.mark.parametrize("content", [b"", b"ARROW1 and no more", b"words, not a table"])
def test_a_damaged_table_is_a_mistake_with_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: is not a readable table"):
        load_prompts(str(tmp_path / name))


@pytest.mark.parametrize("name", ["none.jsonl", "none.parquet", "none.arrow"])
def test_an_absent_file_is_a_mistake_with_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: cannot be read"):
        load_prompts(str(tmp_path / name))


@pytest.mark.parametrize(
    ("source", "rule"),
    [("prompts.xlsx", "no known kind of source"), ("hub:name", "not of the form hub:owner/name")],
)
def test_a_source_of_no_known_kind_is_refused_with_the_kinds_that_are(source: str, rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        load_prompts(source)


def test_a_data_set_is_loaded_by_its_id_and_an_unreachable_one_is_a_mistake(tmp_path: Path) -> None:
    # A process of its own, since `datasets` looks for an id in the working directory first, and reads its
    # environment once.
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "train.jsonl").write_text('{"prompt": "x", "id": 4}\n', encoding="utf-8")
    program = (
        "from dynalign.configs.errors import UserError\n"
        "from dynalign.rollout.prompts import load_prompts\n"
        "print(load_prompts('hub:owner/name').train)\n"
        "try:\n    load_prompts('hub:owner/absent')\n"
        "except UserError as error:\n    print(error)\n"
    )
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    loaded, mistake = done.stdout.splitlines()
    assert loaded == "(Prompt(id='4', prompt='x', domain='', split='train'),)"
    assert mistake.startswith("prompts = 'hub:owner/absent': cannot be loaded")


def test_the_content_hash_sees_every_field_and_the_order() -> None:
    one, other = Prompt("a", "x", "d", "train"), Prompt("b", "y", "d", "train")
    changed = [("c", "y", "d", "train"), ("b", "z", "d", "train"), ("b", "y", "e", "train")]
    sets = [
        PromptSet((one, other), ()),
        PromptSet((other, one), ()),
        PromptSet((one,), ()),
        *(PromptSet((one, Prompt(*fields)), ()) for fields in changed),
    ]
    assert len({prompts.content_hash for prompts in sets}) == len(sets)
    assert PromptSet((one, other), ()).content_hash == sets[0].content_hash


def rows(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_text_that_stands_more_than_once_in_a_split_is_counted_and_stays(tmp_path: Path) -> None:
    content = rows(
        {"id": "a", "prompt": "What is fair?"},
        {"id": "b", "prompt": "What is fair? "},
        {"prompt": "How?"},
        {"prompt": "How?"},
        {"prompt": "How?"},
        {"prompt": "Why?", "split": "heldout"},
        {"prompt": "Why?", "split": "heldout"},
    )
    prompts = load_prompts(written(tmp_path, content))
    how = prompts.train[2].id
    assert [prompt.id for prompt in prompts.train] == ["a", "b", how, f"{how}-2", f"{how}-3"]
    assert prompts.repeated == 4
    assert load_prompts("builtin").repeated == 0


@pytest.mark.parametrize("ids", [("t1", "h1"), (None, None)])
@pytest.mark.parametrize("splits", [("train", "heldout"), ("heldout", "train")])
def test_a_text_in_both_splits_is_refused_with_both_rows(
    tmp_path: Path, ids: tuple[str | None, str | None], splits: tuple[str, str]
) -> None:
    texts = ("What is fair?", "What is fair?\n")
    both = [
        {"id": id_, "prompt": text, "split": split}
        for id_, text, split in zip(ids, texts, splits, strict=True)
    ]
    source = written(tmp_path, rows(*both, {"prompt": "another"}))
    with pytest.raises(UserError) as error:
        load_prompts(source)
    (line,) = lines_of(error)
    assert line.startswith(f"{source}:2")
    assert f"has the text of {source}:1" in line
    assert "leave one of the two out" in line


def test_a_source_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path, '{"prompt": "x"}\n')
    assert len(load_prompts("~/p.jsonl").train) == 1


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".arrow"])
def test_a_source_that_is_no_file_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    folder, pipe, device = (tmp_path / f"{name}{suffix}" for name in ("folder", "pipe", "device"))
    folder.mkdir()
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path, kind in ((folder, "folder"), (pipe, "pipe"), (device, "device")):
        with pytest.raises(UserError, match=rf"cannot be read \(it is a {kind}\); correct the path"):
            load_prompts(str(path))


def test_reading_many_rows_says_how_many_there_are(tmp_path: Path) -> None:
    said: list[int] = []
    source = written(tmp_path, rows(*({"prompt": str(number)} for number in range(25_000))))
    load_prompts(source, said.append)
    assert said == [10_000, 20_000]


@given(prompts_count=st.integers(1, 40), seed=st.integers(), epoch=st.integers(0, 50))
def test_every_epoch_draws_each_prompt_once(prompts_count: int, seed: int, epoch: int) -> None:
    order = PromptOrder(prompts_count, seed)
    drawn = [order.at(epoch * prompts_count + position) for position in range(prompts_count)]
    assert sorted(draw.index for draw in drawn) == list(range(prompts_count))
    assert {draw.epoch for draw in drawn} == {epoch}


def test_epochs_and_seeds_differ_in_their_order() -> None:
    orders = {
        tuple(PromptOrder(30, seed).at(epoch * 30 + position).index for position in range(30))
        for seed in (0, 1, -1)
        for epoch in range(4)
    }
    assert len(orders) == 12


@given(draw=st.integers(0, 5000), asked_before=st.lists(st.integers(0, 5000), max_size=20))
def test_a_draw_depends_on_its_number_alone(draw: int, asked_before: list[int]) -> None:
    order = PromptOrder(17, 3)
    for earlier in asked_before:
        order.at(earlier)
    assert order.at(draw) == PromptOrder(17, 3).at(draw)


def test_the_order_of_a_seed_is_the_same_in_every_release() -> None:
    # Worked with sha256sum over "42/<epoch>/<index>" and sort.
    assert [PromptOrder(8, 42).at(draw).index for draw in range(8)] == [6, 7, 2, 3, 0, 5, 4, 1]
    assert PromptOrder(8, 42).at(17) == DrawnPrompt(index=4, epoch=2)


def test_an_order_of_nothing_or_a_negative_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one prompt"):
        PromptOrder(0, 1)
    with pytest.raises(ValueError, match="counted from 0"):
        PromptOrder(3, 1).at(-1)
