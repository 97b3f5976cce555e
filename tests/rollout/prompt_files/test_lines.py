import gzip
import threading
import time
from pathlib import Path

import pytest

from dynalign.configs.user_files import UnreadableFile, read_parts
from dynalign.rollout.prompt_files.lines import (
    FREE_BYTES,
    LONGEST_LINE_BYTES,
    MOST_RATIO,
    content,
    lines,
    unpacked,
)


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 100])
def test_lines_are_those_of_the_file_wherever_its_parts_end(cut: int) -> None:
    whole = b"one\r\ntwo\n\nfour\n" + b"x" * 50
    parts = [whole[start : start + cut] for start in range(0, len(whole), cut)]
    assert list(lines(parts)) == whole.split(b"\n")
    assert list(lines([*parts, b"\n"])) == whole.split(b"\n")
    assert list(lines([])) == []


def test_a_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    drawn = []

    def endless() -> object:
        while True:
            drawn.append(1)
            yield b"x" * (1 << 20)

    with pytest.raises(UnreadableFile, match="line 1 has more than 16,777,216 bytes"):
        list(lines(endless()))  # type: ignore[arg-type]
    assert len(drawn) <= (LONGEST_LINE_BYTES >> 20) + 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named(encoding: str) -> None:
    mark = b"" if encoding == "utf-16" else "\ufeff".encode(encoding)
    with pytest.raises(UnreadableFile, match="UTF-16, not UTF-8"):
        list(lines([mark + '{"prompt": "x"}\n'.encode(encoding)]))


@pytest.mark.parametrize("cut", [1, 5, 1_000_000])
def test_gzip_is_unpacked_whatever_its_parts_and_however_many_streams(cut: int) -> None:
    packed = gzip.compress(b"one\ntw") + gzip.compress(b"") + gzip.compress(b"o\n") + b"\0" * 20
    parts = [packed[start : start + cut] for start in range(0, len(packed), cut)]
    assert b"".join(unpacked(parts)) == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("packed", "cause"),
    [
        (gzip.compress(b"x" * 1000, mtime=0)[:-9], "ends too early"),
        (b"", "ends too early"),
        (b"words, not gzip", "not packed by gzip"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-8] + b"\1" * 8, "damaged"),
        (gzip.compress(b"fine", mtime=0) + b"and a tail", "not packed by gzip"),
    ],
)
def test_damaged_gzip_is_named(packed: bytes, cause: str) -> None:
    with pytest.raises(UnreadableFile, match=cause):
        list(unpacked([packed]))


def test_a_bomb_is_refused_before_it_fills_memory_or_time() -> None:
    layer = gzip.compress(b"\0" * (2 * FREE_BYTES))
    seen_bytes = 0
    with pytest.raises(UnreadableFile, match=f"unpacks to more than {MOST_RATIO} times its size"):  # noqa: PT012
        for part in unpacked([layer]):
            seen_bytes += len(part)
            assert len(part) <= 1 << 20
    assert seen_bytes <= FREE_BYTES + MOST_RATIO * len(layer)


def test_a_file_is_read_no_further_than_its_reader_asks(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 27)  # 128 MiB, of which the disk holds nothing
    parts = read_parts(path)
    assert len(next(parts)) == 1 << 24
    parts.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while any(each.name == "read large.jsonl" for each in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sum(len(part) for part in read_parts(path)) == 1 << 27


def test_only_names_that_say_so_are_unpacked(tmp_path: Path) -> None:
    packed = gzip.compress(b"text")
    (tmp_path / "a.jsonl.GZ").write_bytes(packed)
    (tmp_path / "a.jsonl").write_bytes(packed)
    assert b"".join(content(tmp_path / "a.jsonl.GZ")) == b"text"
    assert b"".join(content(tmp_path / "a.jsonl")) == packed
