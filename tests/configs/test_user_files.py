"""The bounded reader of files that a user names, and what a bounded file can still stand for."""

import os
import queue
import time
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.configs.load import MOST_BYTES, load_run
from dynalign.configs.tree import MOST_VALUES
from dynalign.configs.user_files import TooLarge, UnreadableFile, check_is_file, read_file, received

QUICK_S = 5.0
"""Longer than any refusal takes on a busy machine; what is not bounded takes minutes, or all memory."""


def refused(folder: Path, text: str) -> list[str]:
    """The lines that the user would read of a settings file, soon."""
    (folder / "mine.yaml").write_text(text, "utf-8")
    began_s = time.monotonic()
    with pytest.raises(UserError) as caught:
        load_run(str(folder / "mine.yaml"))
    assert time.monotonic() - began_s < QUICK_S
    return str(caught.value).splitlines()


def test_a_file_comes_back_byte_by_byte(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0\xff\n" * 1000)
    assert read_file(tmp_path / "a") == b"\0\xff\n" * 1000
    assert read_file(tmp_path / "a", limit_bytes=3000) == b"\0\xff\n" * 1000
    (tmp_path / "empty").touch()
    assert read_file(tmp_path / "empty", limit_bytes=0) == b""


def test_a_file_over_the_limit_is_named_with_both_sizes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3001)
    with pytest.raises(TooLarge, match=r"^it has 3,001 bytes, more than 3,000$"):
        read_file(tmp_path / "a", limit_bytes=3000)


def test_what_is_no_file_is_refused_by_its_kind_and_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for path, words in [
        (Path("/dev/zero"), "it is a device"),
        (Path("/dev/null"), "it is a device"),
        (tmp_path / "link", "it is a device"),
        (tmp_path / "pipe", "it is a pipe"),
        (tmp_path, "it is a folder"),
        (tmp_path / "absent", "No such file"),
        (tmp_path / "loop", "symbolic link"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "a\0b", "null byte"),
    ]:
        with pytest.raises(UnreadableFile, match=words):
            read_file(path)
        with pytest.raises(UnreadableFile, match=words):
            check_is_file(path)


def test_a_file_system_that_does_not_answer_is_given_up() -> None:
    with pytest.raises(UnreadableFile, match=r"does not answer within 0\.01 s"):
        list(received(queue.SimpleQueue(), silence_s=0.01))


@pytest.mark.parametrize("config", ["/dev/zero", "/dev/tty"])
def test_a_device_is_no_config(config: str) -> None:
    with pytest.raises(UserError, match=rf"{config}: cannot be read \(.*\); give a readable YAML file"):
        load_run(config)


def test_a_pipe_is_no_config(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.yaml")
    with pytest.raises(UserError, match=r"cannot be read \(it is a pipe\)"):
        load_run(str(tmp_path / "mine.yaml"))


def test_a_large_file_is_refused_by_its_size_and_a_smaller_one_by_its_keys(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "key: 0\n" * (MOST_BYTES // 7 + 1))
    assert "is not a settings file (it has 1,048,579 bytes, more than 1,048,576)" in line
    (line,) = refused(tmp_path, "".join(f"key{number}: 0\n" for number in range(60_000)))
    assert f"it is not a settings file: it has more than {MOST_VALUES:,} keys and values" in line


def test_of_a_thousand_mistakes_the_first_hundred_and_a_count_are_said(tmp_path: Path) -> None:
    lines = refused(tmp_path, "model: m/m\n" + "".join(f"key{number}: 0\n" for number in range(1000)))
    assert len(lines) == 101
    assert lines[0].startswith("key0 (mine.yaml:2) = 0: is not a setting")
    assert lines[-1] == "900 more mistakes follow; correct those above first"


@pytest.mark.parametrize("bomb", ["list", "mapping"])
def test_aliases_of_aliases_are_refused_key_by_key_without_being_followed(tmp_path: Path, bomb: str) -> None:
    opening, closing = ("[", "]") if bomb == "list" else ("{", "}")
    lines = ["model: m/m", "a: &a [x, x]" if bomb == "list" else "a: &a {x: 1}"]
    for before, key in zip("abcdefgh", "bcdefghi", strict=True):
        parts = [f"*{before}" if bomb == "list" else f"k{number}: *{before}" for number in range(10)]
        lines.append(f"{key}: &{key} {opening}{', '.join(parts)}{closing}")
    said = refused(tmp_path, "\n".join(lines))
    assert [line for line in said if "is not a setting" not in line and "more mistakes" not in line] == []
    assert len(max(said, key=len)) < 300


def test_a_setting_never_takes_what_aliases_stand_for(tmp_path: Path) -> None:
    levels = [
        f"{key}: &{key} [{', '.join([f'*{before}'] * 4)}]"
        for before, key in zip("abcdefg", "bcdefgh", strict=True)
    ]
    text = "\n".join(["a: &a [x, x]", *levels, "model: *h", "learner: {lora: {targets: *h}}"])
    said = [line for line in refused(tmp_path, text) if line.startswith(("model", "learner"))]
    assert [line.split(":")[0] for line in said] == ["model (mine.yaml", "learner.lora.targets (mine.yaml"]
    assert all(" = <" in line and "values>: must be" in line for line in said)


def test_a_key_with_a_dot_is_told_to_be_a_section(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "model: m/m\nlearner.learning_rate: 1e-6\n")
    assert line == (
        "learner.learning_rate (mine.yaml:2): is a key with a dot, for a section; write it as `learner:`, "
        "with `learning_rate:` in a line of its own below, indented"
    )


def test_a_file_of_a_marker_alone_lacks_a_model(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "---\n")
    assert line.startswith("model: is missing; set model: ")


def test_deep_sections_and_lists_are_refused_by_line(tmp_path: Path) -> None:
    for opening, closing in (("[", "]"), ("{a: ", "}")):
        (line,) = refused(tmp_path, f"model: m/m\nx: {opening * 400}{closing * 400}\n")
        assert line.startswith("mine.yaml:2: cannot be read as settings: it is nested too deeply")
