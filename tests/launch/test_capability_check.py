"""The capability probe before a run: what is refused, and what it says that it will cost."""

import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.configs.load import LoadedRun, load_run
from dynalign.launch.capability_check import cost_line, examined_probe
from dynalign.launch.plan.text import plan_lines
from dynalign.launch.preflight import Prepared, check, preflight, run_contexts
from dynalign.launch.resume.open_run import open_run
from dynalign.run_folder.capability import CapabilityItem
from dynalign.run_folder.metrics import MetricsLog
from tests.worlds.chat_models import tiny_chat_model

PROBE = ("steps=100", "capability.items=30", "capability.every_steps=40", "capability.max_tokens=20")
LONG = ("prompts.max_tokens=2048", "learner.token_budget=4096")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, a cache and no cluster of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("chat"))


def run(model: Path, *overrides: str) -> LoadedRun:
    return load_run("quickstart", [f"model={model}", *PROBE, *LONG, *overrides])


def refusal(prepared: Prepared, folder: Path, step: int = 0, context_tokens: int = 9999) -> str:
    """Why the probe is refused, as one text; empty where it is not."""
    settings = prepared.plan.settings
    contexts = run_contexts(settings, prepared.model_folder, prepared.texts)
    try:
        examined_probe(replace(prepared.plan, context_tokens=context_tokens), contexts, folder, step)
    except UserError as error:
        return str(error)
    return ""


def test_a_run_says_what_its_probe_costs_and_refuses_one_that_cannot_be_asked(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="dynalign.launch.capability_check"):
        prepared = preflight(open_run(run(model)))
    assert prepared.probe is not None
    names = prepared.probe.open().names
    assert len(names) == 30
    (told,) = (each for each in caplog.messages if each.startswith("capability probe: 30 items, at most "))
    assert "before step 1; then they take 5% of a step's completion tokens, at most 77: a point of 40" in told
    assert "engines hold 60" in refusal(prepared, tmp_path, context_tokens=60)
    assert "goes on from step 4, and its initial policy was not asked" in refusal(prepared, tmp_path, step=4)
    with MetricsLog(tmp_path, False, 1) as log:
        log.write_capability([CapabilityItem(0, 0, 1, 30, name, 1.0, "", 9, 0, 0) for name in names])
    assert refusal(prepared, tmp_path, step=4) == ""


def test_the_plan_has_a_line_for_the_probe_and_check_wants_its_items(model: Path) -> None:
    checked = check(open_run(run(model)))
    assert checked.mistakes == []
    assert checked.plan is not None
    (line,) = (line for line in plan_lines(checked.plan) if line.startswith("capability probe"))
    assert "30  items at most, all of them before step 1" in line
    assert "at most 77, 40 steps a point" in line
    assert "about 25 answers" in cost_line(checked.plan, items=30, most_tokens=30 * 120)
    missing = check(open_run(run(model, "capability.suite=paper", "capability.data=nowhere")))
    assert [(mistake.place, mistake.rule) for mistake in missing.mistakes] == [
        ("capability.data", "is no folder")
    ]


def test_where_engines_and_learner_take_turns_the_plan_says_that_training_waits(model: Path) -> None:
    checked = check(open_run(run(model, "placement.mode=shared", "algorithm.max_staleness=0")))
    assert checked.plan is not None
    (line,) = (line for line in plan_lines(checked.plan) if line.startswith("capability probe"))
    assert "30  items at most, before step 1 and every 40 steps; training waits for them" in line
    assert "training waits for them before step 1 and every 40 steps" in cost_line(checked.plan, 30, 900)


@pytest.mark.parametrize(("every", "advice"), [(1000, False), (4, True)])
def test_the_plan_says_how_long_held_out_answers_beside_the_groups_take(
    model: Path, every: int, advice: bool
) -> None:
    beside = ("heldout.waits=false", f"heldout.every_steps={every}")
    checked = check(open_run(run(model, *beside)))
    assert checked.plan is not None
    (line,) = (line for line in plan_lines(checked.plan) if line.startswith("held-out answers"))
    # 8 prompts with and without the system prompt, against 5 % of 32 candidates a step: 10 without contexts
    limit = checked.plan.settings.rollout.max_completion_tokens
    most = math.ceil(10 * (checked.plan.settings.prompts.max_tokens + limit) / limit)
    assert f"16  answers at most; at 5% of a step's completion tokens they take 10 to {most} steps" in line
    assert ("set heldout.every_steps higher" in line) == advice
