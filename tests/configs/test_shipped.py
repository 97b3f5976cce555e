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
    assert [line for line in valued if not re.search(r"# (stated|ours: not stated)", line)] == []


def test_the_paper_s_run_draws_a_thousand_prompts() -> None:
    settings = load_run("paper").settings
    assert (settings.model, settings.steps * settings.rollout.prompts_per_step) == (
        "openai/gpt-oss-20b",
        1000,
    )


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
