"""`dynalign experiment` with runs that are pretended: what is refused, what goes on, what is reported."""

import json
from pathlib import Path

import pytest

from dynalign.configs.errors import RecordError, UserError
from dynalign.launch.commands.experiment_files import ArmRun, ExperimentFiles
from dynalign.run_folder import layout
from tests.worlds.experiment_world import ExperimentWorld, Killed, planted

ARMS = ("samples-g2", "samples-g4", "g8")
RUNS = 9


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExperimentWorld:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return planted({"samples-g2": 1.0, "samples-g4": 2.02, "g8": 2.0}, tmp_path)


def files(world: ExperimentWorld) -> ExperimentFiles:
    return ExperimentFiles(world.folder / "experiment")


def report(world: ExperimentWorld) -> dict[str, object]:
    content = json.loads(files(world).report("json").read_text())
    assert isinstance(content, dict)
    return content


def refusal(world: ExperimentWorld, name: str, *settings: str, **options: object) -> list[str]:
    with pytest.raises(UserError) as refused:
        world.call(name, *settings, **options)
    assert world.started == []
    return str(refused.value).splitlines()


def test_the_plan_is_printed_and_kept_before_a_run_starts_and_every_arm_is_run_with_every_seed(
    world: ExperimentWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.call("group-size", small=True) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "experiment group-size: 3 arms x 3 seeds = 9 runs of quickstart"
    before = printed[: printed.index("samples-g2-s0 starts, 1 of 9")]
    assert any(line.startswith("smallest visible difference: 0.78 points") for line in before)
    assert any("unknown until the first run has ended" in line for line in before)
    assert world.started == [f"{arm}-s{seed}" for seed in range(3) for arm in ARMS]
    assert json.loads(files(world).plan.read_text())["identity"]["baseline"] == "g8"


def test_the_conclusion_names_the_smallest_group_that_is_no_worse(world: ExperimentWorld) -> None:
    world.call("group-size", small=True)
    found = report(world)
    assert found["finished"] is True
    sentences = found["conclusion"]
    assert isinstance(sentences, list)
    assert sentences[0] == "At equal samples: G = 4 is the cheapest arm that is no worse than G = 8."
    assert sentences[1].startswith("G = 2 is worse than G = 8: −")
    assert sentences[2].startswith("G = 4 is no worse than G = 8: ")
    html = files(world).report("html").read_text()
    assert sentences[0] in html
    assert html.count("<svg") == 2
    assert "| G = 8 |" in files(world).report("md").read_text()


def test_a_finished_experiment_prints_its_report_again_and_starts_nothing(
    world: ExperimentWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.call("group-size", small=True)
    files(world).report("html").unlink()
    world.started.clear()
    capsys.readouterr()
    assert world.call("group-size", small=True) == 0
    assert world.started == []
    printed = capsys.readouterr().out
    assert "9 of 9 runs finished" in printed
    assert "G = 4 is the cheapest arm" in printed
    assert files(world).report("html").exists()


@pytest.mark.parametrize("died_after", range(RUNS))
def test_killed_before_any_run_the_same_command_repeats_no_finished_one(
    world: ExperimentWorld, died_after: int
) -> None:
    world.dies_before = lambda start: start == died_after
    with pytest.raises(Killed):
        world.call("group-size", small=True)
    world.dies_before = lambda start: False
    assert world.call("group-size", small=True) == 0
    assert sorted(world.started) == sorted(f"{arm}-s{seed}" for seed in range(3) for arm in ARMS)


def test_a_run_that_fails_ends_no_other_one_and_is_reported_with_its_last_line(
    world: ExperimentWorld,
) -> None:
    world.codes["samples-g4-s1"] = 1
    assert world.call("group-size", small=True) == 1
    assert len(world.started) == RUNS
    found = report(world)
    assert found["finished"] is False
    sentences = found["conclusion"]
    assert isinstance(sentences, list)
    assert sentences[:2] == [
        "Preliminary: 8 of 9 runs have finished.",
        "Run samples-g4-s1 failed after step 0: EngineError: out of memory",
    ]
    world.codes.clear()
    world.started.clear()
    assert world.call("group-size", small=True) == 0
    assert world.started == ["samples-g4-s1"]


def test_a_run_that_gives_no_sign_of_life_is_asked_to_stop_and_is_a_failed_one(
    world: ExperimentWorld,
) -> None:
    world.endless = {"samples-g2-s0"}
    assert world.call("group-size", small=True) == 1
    assert len(world.started) == RUNS
    end = files(world).end(ArmRun("samples-g2", 0))
    assert end is not None
    assert end.said == "no sign of life for 600 s"


def test_checkpoints_of_finished_runs_are_removed_unless_they_are_to_stay(world: ExperimentWorld) -> None:
    folder = files(world).run(ArmRun("g8", 0)) / layout.CHECKPOINTS
    folder.mkdir(parents=True)
    world.call("group-size", small=True, keep_checkpoints=True)
    assert folder.is_dir()
    assert "all checkpoints stay" != ""


def test_an_arm_that_cannot_be_planned_is_refused_by_its_name(world: ExperimentWorld) -> None:
    lines = refusal(world, "staleness", "placement.mode=shared", "arms=k0,k2")
    assert lines
    assert all(line.startswith("arm k2: ") for line in lines)


def test_each_kind_of_bad_input_is_one_line_and_nothing_is_started(world: ExperimentWorld) -> None:
    assert refusal(world, "group-sise")[0].startswith(
        "experiment = 'group-sise': there is no such experiment; did you mean group-size?"
    )
    (one_seed,) = refusal(world, "group-size", seeds=1)
    assert one_seed.startswith("--seeds = 1: needs 3 or more")
    (blind,) = refusal(world, "group-size", "heldout.prompts=2", see=0.1)
    assert "the smallest difference that 3 seeds and 2 held-out prompts can show is" in blind
    (nothing,) = refusal(world, "group-size", "heldout.prompts=0")
    assert nothing.startswith("heldout.prompts = 0: arms are compared by held-out prompts")
    (unknown,) = refusal(world, "group-size", "arms=g8,sample-g4")
    assert unknown.startswith("arms = 'sample-g4': group-size has no such arm; did you mean samples-g4?")
    (models,) = refusal(world, "architecture")
    assert models.startswith("models: names fewer than two models")
    (owned,) = refusal(world, "group-size", "name=mine")
    assert owned.startswith("name: belongs to each run of an experiment")
    assert not (world.folder / "experiment").exists()


def test_two_arms_that_are_the_same_are_refused(world: ExperimentWorld) -> None:
    model = world.folder / "model"
    lines = refusal(world, "architecture", f"models={model},{model}")
    assert lines[-1].startswith("arm m2-model: has the same settings as arm m1-model")


def test_a_changed_plan_is_refused_by_what_has_changed(world: ExperimentWorld) -> None:
    world.call("group-size", small=True)
    world.started.clear()
    lines = refusal(world, "group-size", "steps=5", small=True)
    assert [line.partition(":")[0] for line in lines] == [f"arms {arm} steps = 5" for arm in ARMS]
    assert "was begun with 4" in lines[0]
    (seeds,) = refusal(world, "group-size", small=True, seeds=4)
    assert seeds.startswith("seeds = [0, 1, 2, 3]: the experiment in this folder was begun with [0, 1, 2]")
    assert world.call("group-size", "log_level=debug", "deadlines.stop_s=99.0", small=True) == 0


def test_a_folder_with_other_files_and_a_plan_that_was_edited_are_refused(world: ExperimentWorld) -> None:
    folder = world.folder / "experiment"
    folder.mkdir()
    (folder / "notes.txt").touch()
    (line,) = refusal(world, "group-size", small=True)
    assert "holds files, and no plan of an experiment" in line
    (folder / "notes.txt").unlink()
    world.call("group-size", small=True)
    plan = files(world).plan
    plan.write_text(plan.read_text().replace('"margin": 0.25', '"margin": 2.5'))
    with pytest.raises(RecordError, match="was changed after it was written"):
        world.call("group-size", small=True)


def test_another_experiment_takes_the_variances_that_were_measured(
    world: ExperimentWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.call("group-size", small=True)
    capsys.readouterr()
    world.call(
        "group-size", small=True, measured=str(world.folder / "experiment"), out=str(world.folder / "b")
    )
    assert "(measured in experiment standard deviations: seeds" in capsys.readouterr().out
    (line,) = refusal_after(world, measured=str(world.folder / "nowhere"))
    assert line.startswith("--measured = ")


def refusal_after(world: ExperimentWorld, **options: object) -> list[str]:
    world.started.clear()
    return refusal(world, "group-size", small=True, out=str(world.folder / "c"), **options)
