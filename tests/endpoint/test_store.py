"""The file of answers: opened or refused by name, committed in groups, shared by processes."""

import asyncio
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from dynalign.configs.errors import JournalError, UserError
from dynalign.endpoint.store import AnswerFile


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        AnswerFile(path)
    assert str(path) in str(error.value)
    return str(error.value)


def closed(path: Path) -> Path:
    async def main() -> None:
        await AnswerFile(path).close()

    asyncio.run(main())
    return path


def add_a_row(db: sqlite3.Connection, name: str) -> None:
    db.execute("INSERT INTO spent VALUES (?, 1, 0.5)", (name,))


def test_a_new_file_is_made_with_its_folder_and_opened_again(tmp_path: Path) -> None:
    path = closed(closed(tmp_path / "new" / "answers.sqlite"))
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_text_in_the_place_of_the_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    path.write_text("these are my notes\n" * 100)
    assert "no readable file of answers" in refusal(path)


def test_an_sqlite_file_of_something_else_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "cookies.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE cookies (name TEXT)")
    db.close()
    before = path.read_bytes()
    assert "an SQLite file of something else" in refusal(path)
    assert path.read_bytes() == before


def test_a_file_of_another_format_is_refused_by_its_number(tmp_path: Path) -> None:
    path = closed(tmp_path / "answers")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=7")
    assert "is of format 7, where this version reads format 1" in refusal(path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = closed(tmp_path / "answers")
    db = sqlite3.connect(path)
    with db:
        db.executemany("INSERT INTO spent VALUES (?, 1, 1)", [(f"{each}" * 50,) for each in range(500)])
    db.close()  # moves what is in the write-ahead log into the file
    content = bytearray(path.read_bytes())
    content[9000:17000] = b"\xff" * 8000
    path.write_bytes(content)
    assert "damaged" in refusal(path) or "no readable" in refusal(path)


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path)


def test_what_waits_together_is_committed_together(tmp_path: Path) -> None:
    async def main() -> int:
        file = AnswerFile(tmp_path / "answers")
        await asyncio.gather(*[file.run(partial(add_a_row, name=f"{each}")) for each in range(200)])
        await file.close()
        return file.commits

    assert asyncio.run(main()) <= 3
    assert sqlite3.connect(tmp_path / "answers").execute("SELECT sum(tokens) FROM spent").fetchone() == (200,)


def test_a_work_that_the_file_refuses_is_an_error_that_names_it(tmp_path: Path) -> None:
    async def main() -> None:
        file = AnswerFile(tmp_path / "answers")
        await file.run(partial(add_a_row, name="one"))
        with pytest.raises(JournalError, match="answers: SQLite says: UNIQUE"):
            await file.run(partial(add_a_row, name="one"))
        await file.run(partial(add_a_row, name="two"))
        await file.close()

    asyncio.run(main())


def test_an_error_that_is_none_of_sqlite_reaches_its_caller(tmp_path: Path) -> None:
    def divide(db: sqlite3.Connection) -> float:
        return 1 / 0

    async def main() -> None:
        file = AnswerFile(tmp_path / "answers")
        with pytest.raises(ZeroDivisionError):
            await file.run(divide)
        await file.close()

    asyncio.run(main())


WRITER = """
import asyncio, sys
from functools import partial
from pathlib import Path
from dynalign.endpoint.store import AnswerFile
from tests.endpoint.test_store import add_a_row
async def main():
    file = AnswerFile(Path(sys.argv[1]))
    for round in range(10):
        names = [f"{sys.argv[2]} {round} {each}" for each in range(10)]
        await asyncio.gather(*[file.run(partial(add_a_row, name=name)) for name in names])
    await file.close()
asyncio.run(main())
"""


def test_several_processes_make_and_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert sqlite3.connect(path).execute("SELECT count(*) FROM spent").fetchone() == (300,)
