"""`dynalign experiment paper` with pretended steps: their order, what goes on, and what is reported."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.launch.commands.experiment_files import ExperimentFiles
from dynalign.launch.commands.experiment_options import ExperimentOptions, with_config
from dynalign.launch.commands.experiment_paper import PaperStep, experiment_paper
from dynalign.launch.commands.experiment_runs import RunTime
from dynalign.launch.preflight import Checked
from tests.worlds.experiment_world import Killed, write_run

CARD = {
    "figures": {
        "win_rate": {"mean": 0.75, "low": 0.61, "high": 0.86, "n": 8},
        "judges": [{"judge": "base"}],
        "warnings": ["one judge alone"],
    }
}


@dataclass
class PretendedStep:
    """A step that leaves at its first look what the real one would leave."""

    step: PaperStep
    way: "Way"

    def poll(self) -> int | None:
        code = self.way.codes.get(self.step.name, 0)
        if code == 0:
            self.way.leaves[self.step.name](self.step.folder)
        return code

    def ask_to_stop(self) -> None:
        """It has ended by then."""

    def kill(self) -> None:
        """It has ended by then."""

    def silent_s(self) -> float:
        return 0.0


def leave_prompts(folder: Path) -> None:
    folder.mkdir(parents=True)
    rows = [{"prompt": f"Prompt {n}?", "split": "train" if n < 6 else "heldout"} for n in range(12)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def leave_card(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(CARD))


@dataclass
class Way:
    """What the steps do, and which were started."""

    folder: Path
    codes: dict[str, int] = field(default_factory=dict)
    dies_at: str = ""
    started: list[PaperStep] = field(default_factory=list)
    leaves: dict[str, Callable[[Path], None]] = field(
        default_factory=lambda: {
            "prompts": leave_prompts,
            "train": lambda folder: write_run(folder, 3.0),
            "evaluate": leave_card,
        }
    )

    @property
    def files(self) -> ExperimentFiles:
        return ExperimentFiles(self.folder / "paper")

    def start(self, step: PaperStep, files: ExperimentFiles) -> PretendedStep:
        if step.name == self.dies_at:
            raise Killed
        self.started.append(step)
        files.log(step).write_text("EngineError: out of memory\n")
        return PretendedStep(step, self)

    def walk(self, *settings: str, small: bool = True) -> int:
        options = ExperimentOptions("paper", "", settings, small=small, out=str(self.files.folder))
        return experiment_paper(
            with_config(options),
            self.start,
            RunTime(lambda: 0.0, lambda s: None),
            lambda plan: Checked(None, []),
        )


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Way:
    monkeypatch.chdir(tmp_path)
    return Way(tmp_path)


def test_the_whole_way_is_three_commands_and_a_report_with_the_papers_table(
    way: Way, capsys: pytest.CaptureFixture[str]
) -> None:
    assert way.walk() == 0
    prompts, train, evaluate = (step.arguments for step in way.started)
    assert prompts[:2] == ("prompts", "make")
    assert prompts[4:6] == ("--local", "smollm2-135m-instruct")
    assert train[:2] == ("train", "quickstart")
    assert f'prompts.source="{way.files.folder}/prompts"' in train
    assert evaluate[:3] == ("evaluate", "pairwise", "run")
    said = capsys.readouterr().out
    assert "The run trains on the prompts that were made." in said
    assert "win rate 75.0 % (61.0 to 86.0); it is preferred." in said
    text = way.files.report("md").read_text()
    assert "| preference over the base | 87.2 %, one judge, no interval | 75.0 % (61.0 to 86.0)" in text
    assert json.loads(way.files.report("json").read_text())["finished"] is True
    assert "Held-out reward" in way.files.report("html").read_text()


@pytest.mark.parametrize(("died_at", "left"), [("prompts", 3), ("train", 2), ("evaluate", 1)])
def test_killed_at_any_step_the_same_command_goes_on_and_repeats_none(
    way: Way, died_at: str, left: int
) -> None:
    way.dies_at = died_at
    with pytest.raises(Killed):
        way.walk()
    assert len(way.started) == 3 - left
    way.dies_at = ""
    assert way.walk() == 0
    assert [step.name for step in way.started] == ["prompts", "train", "evaluate"]
    assert way.walk() == 0
    assert len(way.started) == 3


def test_too_few_prompts_are_replaced_by_the_shipped_ones_and_the_report_says_so(way: Way) -> None:
    way.leaves["prompts"] = lambda folder: folder.mkdir()
    assert way.walk() == 0
    assert not any(argument.startswith("prompts.source") for argument in way.started[1].arguments)
    assert "on the shipped prompts, since too few were made" in way.files.report("md").read_text()


def test_a_step_that_fails_ends_the_way_and_is_reported(way: Way) -> None:
    way.codes["train"] = 1
    assert way.walk() == 1
    assert [step.name for step in way.started] == ["prompts", "train"]
    conclusion = json.loads(way.files.report("json").read_text())["conclusion"]
    assert conclusion[:2] == [
        "Preliminary: 1 of 3 steps have ended.",
        "The step train failed: EngineError: out of memory",
    ]
    way.codes.clear()
    assert way.walk() == 0


def test_the_plan_alone_starts_nothing_and_writes_nothing(
    way: Way, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ExperimentOptions("paper", "quickstart", small=True, plan=True, out=str(way.files.folder))
    assert experiment_paper(options, way.start, None, lambda plan: Checked(None, [])) == 0
    assert way.started == []
    assert not way.files.folder.exists()
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].strip() for line in said[1:4]] == ["prompts", "train", "evaluate"]
    assert said[-1] == "nothing was started; the same command without --plan starts it"


def test_a_changed_way_is_refused_and_another_configuration_is_the_papers(way: Way) -> None:
    way.walk()
    with pytest.raises(UserError, match="^train steps = '3'"):
        way.walk("steps=3")
    options = ExperimentOptions("paper", "")
    assert with_config(options).config == "paper"
    assert with_config(ExperimentOptions("paper", "steps=3")).settings == ("steps=3",)
    with pytest.raises(UserError, match="^CONFIG: is missing"):
        with_config(ExperimentOptions("staleness", "steps=3"))


def test_an_endpoint_that_writes_the_prompts_takes_the_place_of_the_local_model(way: Way) -> None:
    way.walk("making.endpoint.address=http://host/v1", "making.endpoint.model=m", "judged_by=judge.yaml")
    assert "--local" not in way.started[0].arguments
    assert "endpoint.model=m" in way.started[0].arguments
    judge = way.started[2].arguments
    assert judge[judge.index("--judge") + 1] == "judge.yaml"
