"""The run folder: its state, its config.yaml, and what is refused about it."""

import json
import os
from pathlib import Path

import pytest

from dynalign.configs.errors import RecordError, UserError
from dynalign.configs.load import LoadedRun, load_run, shipped_names
from dynalign.launch.ray_cluster.ray_job import JOB_VARIABLE
from dynalign.launch.resume.open_run import RunFolder, config_lines, find_run, open_run
from dynalign.rollout.ledger import log as ledger_log
from dynalign.rollout.ledger.values import Commit, LineageStart


def begun(runs: Path, name: str = "quickstart", **changes: str) -> tuple[LoadedRun, RunFolder]:
    """A run whose folder has its config, as after a first start."""
    loaded = load_run(
        "quickstart", [f"runs={runs}", f"name={name}", *(f"{key}={value}" for key, value in changes.items())]
    )
    folder = open_run(loaded).folder
    folder.write_config(loaded)
    return loaded, folder


@pytest.mark.parametrize("name", shipped_names())
def test_a_written_config_reads_back_to_the_same_settings(tmp_path: Path, name: str) -> None:
    loaded = load_run(
        name,
        ["learner.lora={targets: [q_proj]}", "learner.learning_rate=1e-6", "judge.values='a: # \"b\" ö'"],
    )
    file = tmp_path / "config.yaml"
    file.write_text("\n".join(config_lines(loaded)))
    assert load_run(str(file)).settings == loaded.settings


def test_a_written_config_says_where_each_value_came_from(tmp_path: Path) -> None:
    _, folder = begun(tmp_path, steps="5")
    lines = (folder.path / "config.yaml").read_text().splitlines()
    assert "steps: 5  # command line" in lines
    assert any(line.startswith("  group_size: 8  # quickstart.yaml:") for line in lines)
    assert "  eager: true  # default" in lines


def test_a_config_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    loaded, folder = begun(tmp_path)
    folder.write_config(loaded)
    assert [path.name for path in folder.path.iterdir()] == ["config.yaml"]


def test_a_folder_is_under_runs_and_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_run(load_run("quickstart")).folder.path == tmp_path / "runs" / "quickstart"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert (
        open_run(load_run("quickstart", ["runs=~/r"])).folder.path == tmp_path / "home" / "r" / "quickstart"
    )


def test_a_run_is_new_then_interrupted_then_finished(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "none").state() == "new"
    _, folder = begun(tmp_path)
    assert folder.state() == "interrupted"
    for state, expected in (
        ("interrupted", "interrupted"),
        ("failed", "interrupted"),
        ("finished", "finished"),
    ):
        (folder.path / "summary.json").write_text(json.dumps({"state": state}))
        assert folder.state() == expected


@pytest.mark.parametrize("text", ["", "[]", "{}", '"finished"'])
def test_a_summary_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(RecordError, match=r"summary\.json"):
        RunFolder(tmp_path).state()


def finished_at(folder: RunFolder, step: int) -> None:
    counts = dict.fromkeys(("issued", "pending", "leased", "scored", "trained"), 0)
    rest = {"withheld_by_reason": {}, "rewards": [], "report": None, "checkpoint": None, "cause": None}
    ended = {"run": "quickstart", "state": "finished", "step": step, "steps": step, "wall_s": 1.0}
    (folder.path / "summary.json").write_text(json.dumps(ended | counts | rest))


def test_a_finished_run_is_over_until_it_is_given_more_steps(tmp_path: Path) -> None:
    loaded, folder = begun(tmp_path, steps="5")
    assert folder.finished(loaded.settings) is None
    finished_at(folder, 5)
    ended = folder.finished(loaded.settings)
    assert ended is not None
    assert ended.step == 5
    assert folder.finished(load_run("quickstart", ["steps=6"]).settings) is None


def test_a_run_that_never_resumes_refuses_a_folder_with_a_run(tmp_path: Path) -> None:
    loaded, folder = begun(tmp_path, resume="never")
    (mistake,) = folder.mistakes(loaded.settings)
    assert mistake.place == "name"
    finished_at(folder, 100)
    assert folder.finished(loaded.settings) is None
    assert RunFolder(tmp_path / "other").mistakes(loaded.settings) == []


def test_in_a_ray_job_a_folder_that_goes_with_the_job_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "working_dir_files" / "_ray_pkg_1a2b"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv(JOB_VARIABLE, json.dumps({"runtime_env": {"working_dir": "gcs://_ray_pkg_1a2b.zip"}}))
    for runs in ("runs", str(copy / "runs")):
        loaded = load_run("quickstart", [f"runs={runs}"])
        (mistake,) = open_run(loaded).folder.mistakes(loaded.settings)
        assert (mistake.place, mistake.value) == ("runs", runs)
        assert "temporary copy" in mistake.rule
        assert "runs=/absolute/path" in mistake.remedy
    kept = load_run("quickstart", [f"runs={tmp_path / 'runs'}"])
    assert open_run(kept).folder.mistakes(kept.settings) == []


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    loaded = load_run("quickstart", [f"runs={tmp_path / 'file'}"])
    (mistake,) = open_run(loaded).folder.mistakes(loaded.settings)
    assert "is no folder" in mistake.rule


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    loaded = load_run("quickstart", [f"runs={tmp_path}"])
    (mistake,) = open_run(loaded).folder.mistakes(loaded.settings)
    assert "cannot be written to" in mistake.rule


def test_the_newest_lineage_is_read_from_the_log(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).newest_lineage() == 0
    log = ledger_log.LedgerLog(tmp_path / "ledger.log")
    log.append(LineageStart(lineage=1, step=0, parent=0), durable=False)
    log.append(Commit(1, 1, (0,), ()), durable=False)
    log.append(LineageStart(lineage=4, step=1, parent=1), durable=False)
    log.close()
    assert RunFolder(tmp_path).newest_lineage() == 4


def test_a_run_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    _, folder = begun(tmp_path)
    assert find_run("quickstart", str(tmp_path)) == folder.path
    assert find_run(str(folder.path), "elsewhere") == folder.path


def test_an_unknown_run_is_told_what_is_there(tmp_path: Path) -> None:
    begun(tmp_path, name="first")
    with pytest.raises(UserError, match=r"did you mean first\?"):
        find_run("frist", str(tmp_path))
    with pytest.raises(UserError, match="there are: first"):
        find_run("zzz", str(tmp_path))
    with pytest.raises(UserError, match="set --runs"):
        find_run("first", str(tmp_path / "empty"))


def test_a_continued_run_keeps_the_day_it_began(tmp_path: Path) -> None:
    loaded, folder = begun(tmp_path)
    opened = open_run(loaded)
    first = opened.dated()
    assert first.settings.date is not None
    assert first.loaded.origins["date"] == "the day the run began"
    folder.write_config(open_run(load_run("quickstart", [f"runs={tmp_path}", "date=2024-02-29"])).loaded)
    assert opened.dated().settings.date == "2024-02-29"


def test_a_day_that_the_user_sets_holds(tmp_path: Path) -> None:
    _, folder = begun(tmp_path, date="2024-02-29")
    again = open_run(load_run("quickstart", [f"runs={tmp_path}", "date=2025-01-01"]))
    assert again.folder == folder
    assert again.dated() is again


@pytest.mark.parametrize("text", ["", "[]", "date: [", 'date: "soon"'])
def test_a_config_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RecordError, match=r"config\.yaml"):
        RunFolder(tmp_path).day()
