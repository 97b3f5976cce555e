"""Output that nobody reads, that is closed, or that cannot spell a character, ends no command."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.launch.test_preflight import paper_model
from tests.worlds.product import ROOT

TRAINING = """
import sys
from pathlib import Path
from dynalign.launch import output
from dynalign.launch.progress import ProgressView
from dynalign.run_folder.run_status import RunStatus

output.make_safe()
with ProgressView() as view:
    for step in range(1, 501):
        view.update(RunStatus("r", "running", step, 500, metrics={"step": step, "reward_mean": 1.0}))
print("run r finished: \u2192 \u00b7")
lost = output.lost()
Path(sys.argv[1]).write_text(str(None if lost is None else lost.errno))
"""
COMMAND = "import sys; from dynalign.launch.cli import main; sys.exit(main())"


def python(script: str, *arguments: str, **settings: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_run_whose_reader_goes_away_goes_on_to_its_end(tmp_path: Path) -> None:
    running = python(TRAINING, str(tmp_path / "done"))
    assert running.stdout is not None
    assert b"step 1/500" in running.stdout.readline()
    running.stdout.close()  # as `head -1` does
    assert running.stderr is not None
    assert (running.wait(300), running.stderr.read()) == (0, b"")
    assert (tmp_path / "done").read_text() == "32", "EPIPE is known afterwards"


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-", "> /dev/full"])
def test_a_run_whose_output_is_closed_or_full_goes_on_to_its_end(tmp_path: Path, closed: str) -> None:
    (tmp_path / "run.py").write_text(TRAINING)
    shell = f"{sys.executable} run.py done {closed}"
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(shell, shell=True, cwd=tmp_path, env=settings, timeout=300).returncode == 0
    assert (tmp_path / "done").read_text() == ("28" if "full" in closed else "None")


def test_a_file_that_is_opened_later_is_not_taken_for_the_closed_output(tmp_path: Path) -> None:
    opens = (
        "from dynalign.launch import output\noutput.make_safe()\nfile = open('file', 'w')\n"
        "import os\nos.write(1, b'lost')\nassert file.fileno() > 2"
    )
    (tmp_path / "opens.py").write_text(opens)
    shell = f"{sys.executable} opens.py <&- >&-"
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(shell, shell=True, cwd=tmp_path, env=settings, timeout=300).returncode == 0
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["check", "quickstart", "runs=·→…"], 0),
        (["explain", "quickstart", "runs=·→…"], 0),
        (["doctor", "→"], 2),
        (["status", "→·"], 2),
        (["export", "→·", "…"], 2),
        (["train", "quickstart", "·→=1"], 2),
        (["--help"], 0),
    ],
)
def test_an_encoding_without_a_character_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], code: int
) -> None:
    paper_model(tmp_path / "cache" / "dynalign" / "models" / "smollm2-135m-instruct")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    asked = python(COMMAND, *arguments, PYTHONIOENCODING="ascii", XDG_CACHE_HOME=str(tmp_path / "cache"))
    out, err = asked.communicate(timeout=300)
    assert asked.returncode == code, err
    assert b"Traceback" not in err
    assert out if code == 0 else err.count(b"\n") == 1


def test_what_is_printed_in_ascii_has_question_marks(tmp_path: Path) -> None:
    out, err = python(TRAINING, str(tmp_path / "done"), PYTHONIOENCODING="ascii").communicate(timeout=300)
    assert err == b""
    assert out.endswith(b"run r finished: ? ?\n")
