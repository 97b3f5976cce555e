"""The folders that commands write to: what is refused, by every command alike."""

import json
import os
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.launch.cli import dynalign, run_command
from dynalign.launch.output_folder import output_folder
from dynalign.launch.ray_cluster.ray_job import JOB_VARIABLE
from dynalign.run_folder import layout
from tests.launch.test_preflight import paper_model


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The copy of the working directory in which a submitted job runs."""
    paper_model(tmp_path / "cache" / "dynalign" / "models" / "smollm2-135m-instruct")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = tmp_path / "working_dir_files" / "_ray_pkg_1a2b"
    copy.mkdir(parents=True)
    (copy / "tasks.jsonl").write_text('{"prompt": "What may we grow here?"}\n')
    monkeypatch.chdir(copy)
    monkeypatch.setenv(JOB_VARIABLE, json.dumps({"runtime_env": {"working_dir": "gcs://_ray_pkg_1a2b.zip"}}))
    return copy


MODEL = "smollm2-135m-instruct"


@pytest.mark.parametrize(
    "command",
    [
        ["prompts", "make", "--count", "5", "--out", "made", "--local", MODEL],
        ["prompts", "check", "tasks.jsonl", "--out", "made"],
        ["judge", "check", "quickstart", "--out", "made"],
        ["judge", "check", "quickstart"],
        ["evaluate", "pairwise", "--model", MODEL, "--against", MODEL, "--judge", MODEL, "--out", "made"],
        ["evaluate", "pairwise", "--model", MODEL, "--against", MODEL, "--judge", MODEL],
        ["evaluate", "suite", "quick", "--model", MODEL, "--out", "made"],
        ["evaluate", "suite", "quick", "--model", MODEL],
        ["experiment", "staleness", "quickstart", "--small", "--out", "made"],
        ["experiment", "staleness", "quickstart", "--small"],
        ["experiment", "paper", "quickstart", "--small", "--out", "made"],
    ],
    ids=" ".join,
)
def test_in_a_ray_job_no_command_writes_what_goes_with_the_job(
    job: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert run_command(dynalign, command) == 2
    assert "in a temporary copy of the job's working directory, which goes with the job" in (
        capsys.readouterr().err
    )
    assert [path.name for path in job.iterdir()] == ["tasks.jsonl"]


def test_neither_does_an_export(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = job.parent / "runs" / "mine"
    (run / layout.CHECKPOINTS).mkdir(parents=True)
    (run / layout.CONFIG).touch()
    assert run_command(dynalign, ["export", str(run), "exported"]) == 2
    assert "OUT = 'exported': is relative, and a Ray job runs" in capsys.readouterr().err


def test_an_absolute_path_elsewhere_stays(job: Path, tmp_path: Path) -> None:
    assert output_folder("--out", str(tmp_path / "shared"), "set") == tmp_path / "shared" / "set"
    with pytest.raises(UserError, match="lies in a temporary copy"):
        output_folder("--out", str(job / "set"))


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is no folder; name a folder you can write to"):
        output_folder("--out", str(tmp_path / "file" / "set"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written to"):
        output_folder("--out", str(tmp_path / "set"))
