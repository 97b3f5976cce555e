"""Prompts as people have them, read through the one entry that training and `prompts check` use."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from dynalign.configs.errors import Mistake, UserError
from dynalign.rollout.prompt_sources import RowForm, read_rows
from dynalign.rollout.prompts import MOST_MISTAKES, SHOWN_MISTAKES, load_prompts

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is a net?"},
    {"role": "assistant", "content": "A mesh."},
    {"role": "user", "content": [{"type": "text", "text": "How do I"}, {"type": "text", "text": "mend it?"}]},
    {"role": "assistant", "content": "With twine."},
]
SHAREGPT = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hi."}]


def texts(source: Path | str, form: RowForm | None = None) -> list[str]:
    return [prompt.prompt for prompt in load_prompts(str(source), form=form or RowForm()).train]


def refused(source: Path | str, form: RowForm | None = None) -> list[str]:
    with pytest.raises(UserError) as error:
        load_prompts(str(source), form=form or RowForm())
    return str(error.value).splitlines()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '\ufeff{"prompt": "one"}\r\n\r\n{"prompt": "zwei ü"}'),
        ("a.json", '[{"prompt": "one"}, {"prompt": "zwei ü"}]'),
        ("list.json", '\ufeff["one", "zwei ü"]'),
        ("lines.json", '{"prompt": "one"}\n{"prompt": "zwei ü"}\n'),
        ("held.json", '{"version": 2, "data": [{"prompt": "one"}, {"prompt": "zwei ü"}]}'),
        ("columns.json", '{"prompt": ["one", "zwei ü"], "id": ["1", "2"]}'),
        ("a.csv", '\ufeffid,prompt\r\n1,one\r\n\r\n2,"zwei ü"\r\n'),
        ("semicolon.csv", "id;prompt\n1;one\n2;zwei ü\n"),
        ("a.tsv", "prompt\tid\none\t1\nzwei ü\t2"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_text_files_of_every_kind_give_their_prompts(
    tmp_path: Path, name: str, content: str, packed: bool
) -> None:
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    assert texts(path) == ["one", "zwei ü"]


def test_a_value_with_commas_quotes_and_newlines_is_one_prompt_named_by_its_first_line(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,id\n"a, ""b""\nc",1\n"  ",2\n', encoding="utf-8")
    rows = list(read_rows(str(path), []))
    assert rows[0] == (f"{path}:2", {"prompt": 'a, "b"\nc', "id": "1"})
    assert refused(path) == [f"{path}:4 = '  ': 'prompt' is empty; write the prompt or drop the row"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("prompt,id\nfine,1\na, b,2\n", ":3: has 3 values under 2 column names"),
        ('prompt,id\nfine,1\n"open,2\n', ":3: is not valid CSV (unexpected end of data)"),
        ("prompt,id\nfine,1\ncaf\udce9,2\n", ":3: byte 3 of the line is not UTF-8"),
        ("prompt,id\nfine,1\n,2\n", ":3: 'prompt' is missing"),
        ("prompt,id\nfine,1\na\0b,2\n", ":3: 'prompt' holds the character NUL"),
        ("", " = []: has no column 'prompt'"),
        ("prompts,id\nx,1\n", "did you mean 'prompts'? set prompts.column=prompts"),
        ("Question,id\nx,1\n", "did you mean 'Question'? set prompts.column=Question"),
        ("a,b\nx,1\n", "rename the column that holds the prompts, or set prompts.column"),
    ],
)
def test_damaged_values_are_one_clear_line(tmp_path: Path, content: str, line: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    (said,) = refused(path)
    assert line in said


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.json", b'{"a": 1}', "holds no list of rows"),
        ("a.json", b"[1]", ":1: is a int, not a JSON object"),
        ("a.json", b'[{"prompt": "x"}', "is not valid JSON"),
        ("a.json", b'["caf\xe9"]', "byte 5 is not UTF-8"),
        ("a.json", b"[" * 100_000, "is not valid JSON"),
        ("a.jsonl", '{"prompt": "x"}'.encode("utf-16"), "is UTF-16, not UTF-8"),
        ("a.jsonl", b'{"prompt": "a\\u0000b"}', "holds the character NUL"),
        ("a.jsonl", b'{"prompt": [["a"], ["b"]]}', "'prompt' is a list, not a text"),
        ("a.jsonl", b'{"question": "x"}', "did you mean 'question'? set prompts.column=question"),
        ("a.jsonl.gz", b"no gzip", "cannot be read (it is damaged, or not packed by gzip"),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "x"}', mtime=0)[:-4], "gzip stream ends too early"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    (tmp_path / name).write_bytes(content)
    (said,) = refused(tmp_path / name)
    assert line in said


def test_the_last_user_turn_is_the_prompt_and_earlier_turns_stay_if_wanted(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(
        "".join(json.dumps({"messages": each}) + "\n" for each in (CHAT, SHAREGPT)), encoding="utf-8"
    )
    assert texts(path, RowForm("messages")) == ["How do I\nmend it?", "Hello?"]
    assert texts(path, RowForm("messages", earlier_turns=True)) == [
        "System: Be brief.\n\nUser: What is a net?\n\nAssistant: A mesh.\n\nUser: How do I\nmend it?",
        "Hello?",
    ]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_table_of_messages_is_read_by_its_column(tmp_path: Path, kind: str) -> None:
    chat = [{"role": turn["role"], "content": str(turn["content"])} for turn in CHAT[:3]]
    table = pa.table({"chat": [chat, chat], "noise": [1.0, 2.0]})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with pyarrow.ipc.new_stream(path, table.schema) as sink:
            sink.write_table(table, max_chunksize=1)
    assert texts(path, RowForm("chat")) == ["What is a net?"] * 2
    assert "did you mean 'chat'?" in refused(path, RowForm("chats"))[0]


@pytest.mark.parametrize(
    ("messages", "rule"),
    [
        ([{"role": "assistant", "content": "x"}], "has no message of the user"),
        ([{"text": "x"}], "has a message without a role"),
        ([{"role": "user", "content": 3}], "whose content is a int, not a text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "with a part that is no text"),
        ([{"role": "user", "content": None}], "'prompt' is empty"),
        ([], "'prompt' is a list, not a text"),
        ([CHAT], "'prompt' is a list, not a text"),
        ({"role": "user", "content": "x"}, "'prompt' is a dict, not a text"),
    ],
)
def test_messages_without_a_prompt_are_refused(tmp_path: Path, messages: object, rule: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": messages}), encoding="utf-8")
    (said,) = refused(path)
    assert said.startswith(f"{path}:1")
    assert rule in said


def test_messages_as_columns_are_messages(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    columns = {"role": ["user", "assistant"], "content": ["Why?", "So."]}
    path.write_text(json.dumps({"messages": columns}), encoding="utf-8")
    assert texts(path, RowForm("messages")) == ["Why?"]


def test_a_folder_of_shards_is_read_by_name_and_hidden_files_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    (folder / "data").mkdir(parents=True)
    (folder / ".cache").mkdir()
    (folder / "data" / "b-2.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "two"}\n'))
    (folder / "data" / "b-1.jsonl").write_text('{"prompt": "one"}\n', encoding="utf-8")
    (folder / ".cache" / "a.jsonl").write_text('{"prompt": "hidden"}\n', encoding="utf-8")
    (folder / "README.md").write_text("words", encoding="utf-8")
    assert texts(folder) == texts(f"{folder}/") == ["one", "two"]
    (folder / "data" / "b-3.jsonl").write_text("broken\n", encoding="utf-8")
    assert refused(folder)[0].startswith(f"{folder}/data/b-3.jsonl:1: is not valid JSON")
    (folder / "b.csv").write_text("prompt\nx\n", encoding="utf-8")
    assert "several kinds (.csv, .jsonl)" in refused(folder)[0]


def test_a_folder_without_prompts_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "is a folder without a file of prompts" in refused(tmp_path / "empty")[0]
    assert "there is no such folder" in refused(tmp_path / "absent")[0]


def test_a_wrong_field_on_a_million_rows_ends_early_and_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"txt": 3}\n' * (MOST_MISTAKES + 5_000), encoding="utf-8")
    said = refused(path)
    assert len(said) == SHOWN_MISTAKES + 1
    assert f"at least {MOST_MISTAKES - SHOWN_MISTAKES} more mistakes follow" in said[-1]


def test_many_rows_take_the_memory_of_a_few(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    row = json.dumps({"prompt": "word " * 200}).encode() + b"\n"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(40):
            file.write(row * 1_000)  # 40 MB in all
    mistakes: list[Mistake] = []
    tracemalloc.start()
    count = sum(1 for _ in read_rows(str(path), mistakes))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, mistakes) == (40_000, [])
    assert peak_bytes < 24 << 20  # a part of the file is read into 16 MiB
