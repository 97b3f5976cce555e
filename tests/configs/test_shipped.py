"""The run files that come with dynalign."""

import re
from importlib import resources

import pytest

from dynalign.configs.load import load_run, shipped_names

NAMES = shipped_names()


def lines_of(name: str) -> list[str]:
    return resources.files("dynalign.configs").joinpath(f"{name}.yaml").read_text("utf-8").splitlines()


def test_five_runs_are_shipped() -> None:
    assert NAMES == ["cluster", "paper", "quickstart", "single-gpu", "verifiable"]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_run_loads_and_keeps_the_rules(name: str) -> None:
    loaded = load_run(name)
    assert loaded.settings.name == name
    assert {origin.split(":")[0] for origin in loaded.origins.values()} == {"default", f"{name}.yaml"}


@pytest.mark.parametrize("name", NAMES)
def test_every_value_of_a_shipped_run_gives_its_reason(name: str) -> None:
    without = [
        line for line in lines_of(name) if re.match(r"\s*\w+: +\S", line) and not re.search(r"  # \w.+", line)
    ]
    assert without == []


def test_the_paper_s_values_are_marked_as_stated_or_ours() -> None:
    valued = [line for line in lines_of("paper") if re.match(r"\s*\w+: +\S", line)]
    assert len(valued) > 20
    marks = r"# (stated|re-run: stated|ours: not stated)"
    assert [line for line in valued if not re.search(marks, line)] == []


def test_what_the_paper_and_its_authors_state_is_in_its_run() -> None:
    settings = load_run("paper").settings
    rollout = settings.rollout
    assert (settings.model, rollout.group_size) == ("openai/gpt-oss-20b", 8)
    assert (settings.judge.scorer, settings.judge.rubric, settings.judge.kind) == (
        "sampled",
        "unified",
        "self",
    )
    assert (settings.judge.lowest_grade, settings.judge.highest_grade) == (0, 5)
    assert settings.convergence is not None
    # Of the re-run with another model: a batch of 32 samples, 2,150 steps, a KL weight of 0.04.
    assert rollout.prompts_per_step * rollout.group_size == 32
    assert (settings.steps, settings.algorithm.kl_coef) == (2150, 0.04)
    window = settings.convergence.window * settings.heldout.every_steps
    assert window * rollout.prompts_per_step == 1000, "a pass over the paper's prompts"


@pytest.mark.parametrize("name", ["quickstart", "verifiable"])
def test_what_runs_on_a_laptop_needs_no_gpu_and_no_hub(name: str) -> None:
    settings = load_run(name).settings
    assert (settings.placement.device, settings.model, settings.prompts.source) == (
        "cpu",
        "smollm2-135m-instruct",
        "builtin",
    )


@pytest.mark.parametrize("name", ["cluster", "paper"])
def test_what_runs_on_a_cluster_names_a_folder_that_all_nodes_reach(name: str) -> None:
    assert load_run(name).settings.runs.startswith("/")
