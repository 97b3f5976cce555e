"""Requests of shells, and what is done with files that are none."""

from pathlib import Path

import pytest

from dynalign.run_folder.requests import Request, RequestKind, leave, read_status, take, write_status
from dynalign.run_folder.run_status import RunStatus


@pytest.mark.parametrize(
    "request_",
    [Request("pause"), Request("resume"), Request("stop"), Request("scale", 1), Request("scale", 900)],
    ids=str,
)
def test_a_request_is_taken_once_and_its_file_is_gone(tmp_path: Path, request_: Request) -> None:
    file = leave(tmp_path, request_)
    assert file.name == f"{request_.kind}.request"
    assert take(tmp_path) == [request_]
    assert not file.exists()
    assert take(tmp_path) == []


def test_requests_of_several_kinds_are_taken_together(tmp_path: Path) -> None:
    for request_ in (Request("stop"), Request("scale", 3), Request("pause")):
        leave(tmp_path, request_)
    assert take(tmp_path) == [Request("pause"), Request("stop"), Request("scale", 3)]


@pytest.mark.parametrize("kind", ["pause", "resume", "stop"])
@pytest.mark.parametrize("content", [b"", b"0", b"please", b"\xff\x00"])
def test_pause_resume_and_stop_need_no_content(tmp_path: Path, kind: RequestKind, content: bytes) -> None:
    (tmp_path / f"{kind}.request").write_bytes(content)
    assert take(tmp_path) == [Request(kind)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        b"0",
        b"901",
        b"1000000",
        b"-3",
        b"2.5",
        b"1_0",
        b"\xff\x00",
        "٣".encode(),
        b"9" * 10_000,
        b"4 5",
    ],
    ids=lambda content: repr(content[:8]),
)
def test_a_scale_without_a_possible_number_is_removed_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "scale.request").write_bytes(content)
    assert take(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    (record,) = caplog.records
    assert "not a number from 1 to 900" in record.getMessage()
    assert len(record.getMessage()) < 1000
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize("content", ["12", " 12\n", "12\r\n", "012"])
def test_a_scale_may_be_written_by_hand(tmp_path: Path, content: str) -> None:
    (tmp_path / "scale.request").write_text(content)
    assert take(tmp_path) == [Request("scale", 12)]


def test_a_request_that_cannot_be_read_or_removed_is_logged_and_the_others_are_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in ("pause", "scale"):
        (tmp_path / f"{kind}.request" / "foreign").mkdir(parents=True)
    leave(tmp_path, Request("stop"))
    assert take(tmp_path) == [Request("stop")]
    assert [record.getMessage().split(":")[0].split("/")[-1] for record in caplog.records] == [
        "pause.request cannot be taken",
        "scale.request cannot be taken",
    ]


def test_other_files_are_no_requests(tmp_path: Path) -> None:
    for name in ("halt.request", "stop.request.host.7.aside", "stop"):
        (tmp_path / name).touch()
    assert take(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 3


def test_the_status_is_replaced_as_a_whole(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    write_status(tmp_path, RunStatus("run", "running", step=1, phase="learning"))
    write_status(tmp_path, RunStatus("run", "running", step=2))
    assert read_status(tmp_path) == RunStatus("run", "running", step=2)
