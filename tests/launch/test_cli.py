"""The `dynalign` command: what it prints where, its exit codes, and what it leaves unimported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from dynalign.configs.errors import CheckpointError, Mistake, RunFailed, UserError
from dynalign.launch.cli import dynalign, run_command
from tests.launch.test_preflight import paper_model
from tests.worlds.product import ROOT

HEAVY = {"torch", "ray", "vllm", "transformers", "pyarrow", "datasets", "numpy", "deepspeed"}
BUDGET_S = 2.0
"""CPU time: twice the second that `--help` and `check` may take, since the testing machine is not idle."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, in whose cache the small model lies."""
    paper_model(tmp_path / "cache" / "dynalign" / "models" / "smollm2-135m-instruct")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], env=settings, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("arguments", [["--help"], ["check", "quickstart"], ["explain", "paper"]])
@pytest.mark.usefixtures("folder")
def test_parsing_and_checking_import_nothing_heavy_and_are_quick(arguments: list[str]) -> None:
    script = (
        "import json, sys, time\nfrom dynalign.launch.cli import main\ncode = main()\n"
        "print(json.dumps([code, sorted(sys.modules), time.process_time()]), file=sys.stderr)"
    )
    ended = python(script, *arguments)
    code, modules, cpu_s = json.loads(ended.stderr)
    assert code == 0
    assert HEAVY & set(modules) == set()
    assert cpu_s < BUDGET_S


def test_check_prints_the_plan_and_starts_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(dynalign, ["check", "quickstart", "steps=3", "judge.values=null"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "optimizer" in out
    assert out.endswith(
        "nothing was started; `dynalign train quickstart steps=3 judge.values=null` starts it\n"
    )
    assert [path.name for path in folder.iterdir()] == ["cache"]


@pytest.mark.parametrize("command", ["train", "check", "explain"])
@pytest.mark.usefixtures("folder")
def test_every_mistake_is_one_line_on_standard_error(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(dynalign, [command, "quickstart", "rollout.wrkers=2", "steps=many", "bare"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(" ")[0] for line in err.splitlines()] == ["bare:", "steps", "rollout.wrkers"]


def test_explain_gives_each_value_its_origin_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(dynalign, ["explain", "quickstart", "learner.learning_rate=3e-6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("learner.learning_rate = 3e-06  (command line)")
    assert lines[place + 1] == "    Peak learning rate."
    assert any(line.startswith("rollout.group_size = 8  (quickstart.yaml:") for line in lines)
    assert "    convergence.window: Evaluations looked back on." in lines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian", "quickstart"], "did you mean train?"),
        (["zzz"], "there are: check, doctor, evaluate, experiment, explain"),
        (["model", "fech"], "did you mean fetch?"),
        (["train"], "Missing argument 'CONFIG'"),
        (["report"], "Missing argument 'RUN...'"),
        (["check", "quickstart", "--context"], "--contexts"),
        (["export", "run", "out", "--step", "-1"], "--step"),
        (["status", "absent"], "there is no such run"),
        (["stop", "absent"], "there is no such run"),
        (["report", "absent", "missing"], "absent"),
        (["report", "absent", "missing"], "missing"),
        (["replay", "absent"], "there is no such run"),
        (["export", "absent", "out"], "there is no such run"),
        (["model", "fetch", "smollm"], "smollm"),
        (["check", "absent.yaml"], "shipped name: cluster"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_wrong_call_exits_with_2_and_names_the_remedy(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(dynalign, arguments) == 2
    assert words in capsys.readouterr().err


def test_every_command_has_help_that_fits_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(dynalign, ["--help"]) == 0
    listed = capsys.readouterr().out.split("Commands:\n")[1].splitlines()
    assert len(listed) == len(dynalign.commands)
    assert not [line for line in listed if line.endswith("...")]


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(dynalign, ["--version"]) == 0
    assert capsys.readouterr().out.startswith("dynalign")


def test_a_user_s_folder_takes_no_package_away_from_us_and_lends_its_own(folder: Path) -> None:
    (folder / "configs").mkdir()
    (folder / "configs" / "__init__.py").write_text("raise SystemExit('the wrong configs')")
    (folder / "own_module_of_the_user.py").touch()
    script = (
        "import sys; sys.path.remove(''); "
        "from dynalign.launch.cli import main; main(); import own_module_of_the_user"
    )
    ended = python(script, "explain", "quickstart")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_current_folder_that_is_gone_is_one_line(folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    script = (
        "import os, sys; gone = sys.argv.pop(1); os.chdir(gone); os.rmdir(gone)\n"
        "from dynalign.launch.cli import main; sys.exit(main())"
    )
    for arguments in (["check", "quickstart"], ["status", "x"]):
        gone.mkdir(exist_ok=True)
        ended = python(script, str(gone), *arguments)
        assert ended.returncode == 2
        assert ended.stderr.startswith(
            "current folder: does not exist any more; run the command in a folder "
        )
        assert ended.stderr.count("\n") == 1


COMMAND = "import sys; from dynalign.launch.cli import main; sys.exit(main())"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("arguments", [["check", "quickstart"], ["explain", "quickstart"]])
def test_output_to_a_full_device_is_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("standard output: cannot be written (No space left on device); ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.usefixtures("folder")
def test_output_that_nobody_reads_any_more_ends_the_command_without_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND, "explain", "quickstart"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")


TWO = UserError([Mistake("a.b", 1, "is wrong", "mend it"), Mistake("c", None, "too", "this")])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (TWO, 2, "a.b = 1: is wrong; mend it\nc: too; this"),
        (CheckpointError("manifest.json\nis damaged"), 2, "manifest.json is damaged"),
        (RunFailed("rollout-0 ended"), 1, "RunFailed: rollout-0 ended"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_each_kind_of_error_has_its_exit_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    assert run_command(failing, []) == code
    assert capsys.readouterr().err.strip() == said


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), ("text", 0)])
def test_a_command_s_number_is_the_exit_code(returned: object, code: int) -> None:
    @click.command()
    def ending() -> object:
        return returned

    assert run_command(ending, []) == code
