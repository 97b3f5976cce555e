"""`dynalign prompts refresh` while a run goes on: Ray, the real learner, a scripted model that writes."""

import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from dynalign.learner.experience import read_step
from dynalign.rollout.ledger.log import read
from dynalign.rollout.ledger.values import PromptChange
from dynalign.run_folder import layout, requests
from dynalign.run_folder.metrics import read_metrics
from tests.worlds.command import ENVIRONMENT, alive, dynalign, left_over, train, wait_for
from tests.worlds.planted_set import set_of_cells
from tests.worlds.prompt_agents import good
from tests.worlds.prompt_server import agents_act
from tests.worlds.scripted_endpoint import scripted_endpoint
from tests.worlds.tiny_run import config, started

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

PASSES_STEPS = 48
"""Eight groups a step: four passes over 92 prompts, after which it can be seen which of them separate."""


def trained_prompts(folder: Path, after: int) -> set[str]:
    """Ids of the prompts whose groups were trained after that step."""
    files = layout.experience_files(folder / layout.EXPERIENCE)
    later = [files[step] for step in sorted(files) if step > after]
    return {group.prompt_id for file in later for group, _ in read_step(file)}


def changes(folder: Path) -> list[PromptChange]:
    return [event for event in read(folder / layout.LEDGER_LOG) if isinstance(event, PromptChange)]


def step_of(folder: Path) -> int:
    rows = read_metrics(folder) if (folder / layout.METRICS).exists() else []
    return max((row["step"] for row in rows), default=0)


def test_a_run_takes_new_prompts_while_it_goes_on_and_keeps_them_when_it_is_continued(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    source = set_of_cells(
        made, lambda text, cell: f"In the kitchen: {text}" if cell.domain == "food and cooking" else text
    )
    file = config(
        tmp_path,
        prompts={"source": str(source)},
        rollout={"prompts_per_step": 8, "max_completion_tokens": 12},
        algorithm={"max_staleness": 1},
        checkpoint={"every_steps": 1000},
    )
    settings = yaml.safe_load(file.read_text())
    settings["judge"] = {"kind": "function", "function": "tests.worlds.chaos_rewards:dull_kitchens"}
    file.write_text(yaml.safe_dump(settings))
    folder = tmp_path / "runs" / "refreshed"
    process = started(
        dynalign("train", str(file), f"runs={tmp_path / 'runs'}", "name=refreshed", "steps=5000")
    )
    there = alive(process, lambda: step_of(folder) >= PASSES_STEPS)
    wait_for(there, f"it never came to step {PASSES_STEPS}", 600)

    with scripted_endpoint(act=agents_act(good)) as server:
        command = dynalign("prompts", "refresh", "refreshed", "--runs", str(tmp_path / "runs"))
        asked = subprocess.run(
            [*command, f"endpoint.address={server.address}", "endpoint.model=tiny"],
            capture_output=True,
            text=True,
            timeout=300,
            env=ENVIRONMENT,
        )
    assert asked.returncode == 0, asked.stdout + asked.stderr
    wait_for(alive(process, lambda: changes(folder)), "the run never took the prompts", 120)
    (change,) = changes(folder)
    kitchens = {f"p{position:06d}" for position in change.dropped}
    assert len(kitchens) == 4
    assert requests.waiting_prompts(folder) is None

    # What was drawn before stays as it was, so that the first steps after it still hold some of those.
    wait_for(alive(process, lambda: step_of(folder) >= change.step + 16), "it did not go on", 300)
    drawn = trained_prompts(folder, change.step + 3)
    assert {name for name in drawn if name.startswith("refresh-1-")}
    assert not drawn & kitchens
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert left_over() == ()

    done = step_of(folder)
    ended = train(file, "name=refreshed", f"steps={done + 16}")
    assert ended.code == 0, ended.output
    assert changes(folder) == [change]
    drawn = trained_prompts(folder, done)
    assert {name for name in drawn if name.startswith("refresh-1-")}
    assert not drawn & kitchens
