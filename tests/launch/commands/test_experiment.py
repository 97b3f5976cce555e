"""`dynalign experiment` with runs that are pretended: what is refused, what goes on, what is reported."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dynalign.configs.errors import RecordError, UserError
from dynalign.launch.commands.experiment_files import ArmRun, held
from dynalign.run_folder import layout
from tests.worlds.experiment_world import ExperimentWorld

ARMS = ("samples-g2", "samples-g4", "g8")
LEVELS = {"samples-g2": 1.0, "samples-g4": 2.02, "g8": 2.0}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def world(tmp_path: Path) -> ExperimentWorld:
    return ExperimentWorld(tmp_path, dict(LEVELS))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> ExperimentWorld:
    """A finished experiment, which tests only look at."""
    world = ExperimentWorld(tmp_path_factory.mktemp("ended"), dict(LEVELS))
    assert world.call("group-size", small=True) == 0
    return world


@pytest.fixture
def copied(ended: ExperimentWorld, world: ExperimentWorld) -> ExperimentWorld:
    """The same in a folder of its own. The model stays where it was, since its path is in the plan."""
    shutil.copytree(ended.files.folder, world.files.folder)
    (world.folder / "model").symlink_to(ended.folder / "model")
    return world


def again(ended: ExperimentWorld, copied: ExperimentWorld, *settings: str, **options: object) -> int:
    """The command that was given, once more."""
    return copied.call("group-size", f"model={ended.folder / 'model'}", *settings, small=True, **options)


def report(world: ExperimentWorld) -> dict[str, Any]:
    content = json.loads(world.files.report("json").read_text())
    assert isinstance(content, dict)
    return content


def refusal(world: ExperimentWorld, name: str, *settings: str, **options: object) -> list[str]:
    with pytest.raises(UserError) as refused:
        world.call(name, *settings, **options)
    assert world.started == []
    return str(refused.value).splitlines()


def test_every_arm_is_run_with_every_seed_and_the_plan_is_kept(ended: ExperimentWorld) -> None:
    assert ended.started == [f"{arm}-s{seed}" for seed in range(3) for arm in ARMS]
    plan = json.loads(ended.files.plan.read_text())
    assert plan["identity"]["baseline"] == "g8"
    assert plan["visible"] == pytest.approx(0.78, abs=0.005)
    assert plan["cost"]["hours"] is None


def test_the_conclusion_names_the_smallest_group_that_is_no_worse(ended: ExperimentWorld) -> None:
    found = report(ended)
    assert found["finished"] is True
    sentences = found["conclusion"]
    assert sentences[0] == "At equal samples: G = 4 is the cheapest arm that is no worse than G = 8."
    assert sentences[1].startswith("G = 2 is worse than G = 8: −")
    assert sentences[2].startswith("G = 4 is no worse than G = 8: ")
    html = ended.files.report("html").read_text()
    assert sentences[0] in html
    assert html.count("<svg") == 2
    text = ended.files.report("md").read_text()
    assert "| G = 8 |" in text
    assert "value_drift in 3 of 3 runs, first at step 3" in text


def test_a_finished_experiment_prints_its_report_again_and_starts_nothing(
    ended: ExperimentWorld, copied: ExperimentWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    copied.files.report("html").unlink()
    assert again(ended, copied) == 0
    assert copied.started == []
    printed = capsys.readouterr().out
    assert "9 of 9 runs finished" in printed
    assert "hours: 0.1, one after the other" in printed  # nine runs of a minute
    assert "G = 4 is the cheapest arm" in printed
    assert copied.files.report("html").exists()


def test_the_plan_is_printed_before_a_run_starts_and_a_failed_run_is_in_the_report_and_tried_again(
    world: ExperimentWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.codes["samples-g4-s1"] = 1
    assert world.call("group-size", "arms=samples-g4,g8", small=True) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "experiment group-size: 2 arms x 3 seeds = 6 runs of quickstart"
    before = printed[: printed.index("samples-g4-s0 starts, 1 of 6")]
    assert any(line.startswith("smallest visible difference: ") for line in before)
    assert any("unknown until the first run has ended" in line for line in before)
    assert report(world)["conclusion"][:2] == [
        "Preliminary: 5 of 6 runs have finished.",
        "Run samples-g4-s1 failed after step 0: EngineError: out of memory",
    ]
    world.codes.clear()
    world.started.clear()
    assert world.call("group-size", "arms=samples-g4,g8", small=True) == 0
    assert world.started == ["samples-g4-s1"]


def test_checkpoints_of_finished_runs_are_removed_unless_they_are_to_stay(
    ended: ExperimentWorld, copied: ExperimentWorld
) -> None:
    for number, keep in enumerate((True, False)):
        run = copied.files.runs / f"g8-s{number}"
        (run / layout.SUMMARY).unlink()
        (run / layout.CHECKPOINTS).mkdir()
        again(ended, copied, keep_checkpoints=keep)
        assert (run / layout.CHECKPOINTS).exists() == keep
    assert copied.started == ["g8-s0", "g8-s1"]


def test_those_of_a_run_that_finished_after_its_experiment_was_killed_are_too(
    ended: ExperimentWorld, copied: ExperimentWorld
) -> None:
    seen, unseen = ("g8-s0", "g8-s1")
    for name in (seen, unseen):
        (copied.files.runs / name / layout.CHECKPOINTS).mkdir()
    copied.files.begun(ArmRun("g8", 1))
    again(ended, copied)
    assert copied.started == []
    assert not (copied.files.runs / unseen / layout.CHECKPOINTS).exists()
    assert (copied.files.runs / seen / layout.CHECKPOINTS).exists(), "kept by an earlier --keep-checkpoints"


def test_an_arm_that_cannot_be_planned_is_refused_by_its_name(world: ExperimentWorld) -> None:
    settings = ("placement.mode=shared", "algorithm.max_staleness=0")
    (line,) = refusal(world, "staleness", *settings, "arms=k0,k2")
    assert line.startswith("arm k2: algorithm.max_staleness (command line) = 2: with placement.mode=shared")


def test_what_is_wrong_with_every_arm_is_said_once(world: ExperimentWorld) -> None:
    lines = refusal(world, "staleness", "judge.values=nowhere", small=True)
    assert len(lines) == 1
    assert lines[0].startswith("judge.values")


def test_a_design_is_refused_where_it_can_show_nothing(world: ExperimentWorld) -> None:
    (one_seed,) = refusal(world, "group-size", seeds=1)
    assert one_seed.startswith("--seeds = 1: needs 3 or more")
    (blind,) = refusal(world, "group-size", "heldout.prompts=2", see=0.1)
    assert "the smallest difference that 3 seeds and 2 held-out prompts can show is" in blind
    (nothing,) = refusal(world, "group-size", "heldout.prompts=0")
    assert nothing.startswith("heldout.prompts = 0: arms are compared by held-out prompts")
    model = world.folder / "model"
    lines = refusal(world, "architecture", f"models={model},{model}")
    assert lines[-1].startswith("arm m2-model: has the same settings as arm m1-model")
    assert not world.files.folder.exists()


def test_a_name_that_is_not_there_is_answered_with_those_that_are(world: ExperimentWorld) -> None:
    (name,) = refusal(world, "group-sise")
    assert name.startswith("experiment = 'group-sise': there is no such experiment; did you mean group-size?")
    assert "there are: group-size, staleness, " in name
    (arm,) = refusal(world, "group-size", "arms=g8,sample-g4")
    assert arm.startswith("arms = 'sample-g4': group-size has no such arm; did you mean samples-g4?")
    (models,) = refusal(world, "architecture")
    assert models.startswith("models: names fewer than two models")
    (owned,) = refusal(world, "group-size", "name=mine")
    assert owned.startswith("name: belongs to each run of an experiment")


def test_a_changed_plan_is_refused_by_what_has_changed(
    ended: ExperimentWorld, copied: ExperimentWorld
) -> None:
    model = f"model={ended.folder / 'model'}"
    lines = refusal(copied, "group-size", model, "steps=5", small=True)
    assert [line.partition(":")[0] for line in lines] == [f"arms {arm} steps = 5" for arm in ARMS]
    assert "was begun with 3" in lines[0]
    (seeds,) = refusal(copied, "group-size", model, small=True, seeds=4)
    assert seeds.startswith("seeds = [0, 1, 2, 3]: the experiment in this folder was begun with [0, 1, 2]")
    assert again(ended, copied, "log_level=debug", "deadlines.stop_s=99.0") == 0


def test_a_folder_with_other_files_and_a_plan_that_was_edited_are_refused(
    ended: ExperimentWorld, copied: ExperimentWorld
) -> None:
    plan = copied.files.plan
    plan.write_text(plan.read_text().replace('"margin": 0.25', '"margin": 2.5'))
    with pytest.raises(RecordError, match="was changed after it was written"):
        again(ended, copied)
    plan.unlink()
    (line,) = refusal(copied, "group-size", small=True)
    assert "holds files, and no plan of an experiment" in line


def test_another_experiment_takes_the_variances_that_were_measured(
    ended: ExperimentWorld, world: ExperimentWorld
) -> None:
    measured = str(ended.files.folder)
    (line,) = refusal(world, "group-size", small=True, measured=measured, see=0.001)
    assert "(measured in experiment variances)" in line
    (line,) = refusal(world, "group-size", small=True, measured="nowhere")
    assert line.startswith("--measured = 'nowhere': holds no report of an experiment")
    (line,) = refusal(world, "rubric", small=True, measured=measured)
    assert line.startswith("--measured = ")
    assert "has no variances of held-out reward by the third judge" in line


def foreign_prompts(world: ExperimentWorld, texts: list[str]) -> str:
    file = world.folder / "foreign.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return f"foreign={file}"


def test_transfer_holds_out_prompts_of_both_sources_and_concludes_from_their_gains(
    world: ExperimentWorld,
) -> None:
    foreign = foreign_prompts(world, [f"A foreign question {number}?" for number in range(20)])
    assert world.call("transfer", foreign, small=True) == 0
    assert world.started == ["trained-s0", "trained-s1", "trained-s2"]
    rows = [json.loads(line) for line in (world.files.folder / "prompts.jsonl").read_text().splitlines()]
    held = [row["id"] for row in rows if row["split"] == "heldout"]
    assert [sum(each.startswith(begins) for each in held) for begins in ("home-", "foreign-")] == [8, 8]
    found = report(world)
    assert len(found["transfer"]["gaps"]) == 3
    assert "Gains and gaps" in world.files.report("html").read_text()
    # The same file name with other prompts is another plan.
    world.started.clear()
    other = foreign_prompts(world, [f"Another question {number}?" for number in range(20)])
    (line,) = refusal(world, "transfer", other, small=True)
    assert line.startswith("arms trained prompts.content = ")


def test_transfer_needs_two_prompts_of_another_source(world: ExperimentWorld) -> None:
    (line,) = refusal(world, "transfer", small=True)
    assert line.startswith("foreign: is missing")
    (line,) = refusal(world, "transfer", foreign_prompts(world, ["Only one?"]), small=True)
    assert "has 1 prompts to hold out, and two or more are needed" in line


def test_the_plan_alone_starts_nothing_and_writes_nothing(
    world: ExperimentWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.call("staleness", small=True, plan=True) == 0
    assert world.started == []
    assert not world.files.folder.exists()
    assert capsys.readouterr().out.endswith("the same command without --plan starts it\n")


def test_one_command_works_on_an_experiment_at_a_time(
    ended: ExperimentWorld, copied: ExperimentWorld
) -> None:
    with held(copied.files), pytest.raises(UserError, match="another command works on this experiment"):
        again(ended, copied)
    assert again(ended, copied) == 0
