"""`dynalign prompts make` as a user calls it: a set, its files, going on, what is refused, kill −9."""

import hashlib
import json
import random
import subprocess
import time
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.launch.commands.prompts_make import prompts_make
from tests.worlds.command import ENVIRONMENT, dynalign
from tests.worlds.prompt_agents import good, mixed
from tests.worlds.prompt_server import agents_act, of_agents
from tests.worlds.scripted_endpoint import ScriptedEndpoint, scripted_endpoint

FILES = ("prompts.jsonl", "prompts.parquet", "items.jsonl", "items.parquet")


def asked(server: ScriptedEndpoint, *more: str) -> list[str]:
    return [f"endpoint.address={server.address}", "endpoint.model=tiny", *more]


def content(folder: Path) -> str:
    """SHA-256 of a set's files."""
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in FILES)).hexdigest()


def make(server: ScriptedEndpoint, folder: Path, *more: str) -> tuple[int, list[str]]:
    lines: list[str] = []
    code = prompts_make(None, asked(server, *more), str(folder), None, lines.append)
    return code, lines


def refusal(*overrides: str, out: Path) -> str:
    with pytest.raises(UserError) as refused:
        prompts_make(None, overrides, str(out), None)
    return "\n".join(str(mistake) for mistake in refused.value.mistakes)


def test_a_set_is_made_written_and_gone_on_with_for_nothing(tmp_path: Path) -> None:
    with scripted_endpoint(act=agents_act(mixed)) as server:
        code, lines = make(server, tmp_path / "set", "count=20", "heldout_share=0.2")
        first = content(tmp_path / "set")
        paid = len(of_agents(server.billed))
        assert code == 0, lines
        assert make(server, tmp_path / "set", "count=20", "heldout_share=0.2")[0] == 0
        assert len(of_agents(server.billed)) == paid
        assert content(tmp_path / "set") == first
        assert len(set(of_agents(server.billed))) == paid
        assert make(server, tmp_path / "set", "count=24", "heldout_share=0.2")[0] == 0
        assert len(of_agents(server.billed)) > paid
    state = json.loads((tmp_path / "set" / "set.json").read_text())
    assert state["complete"] is True
    assert state["asked"] == (
        state["accepted"] + sum(state["rejected"].values()) + sum(state["failed"].values())
    )
    rows = [json.loads(line) for line in (tmp_path / "set" / "items.jsonl").read_text().splitlines()]
    assert len(rows) == state["asked"]
    assert lines[0].startswith("asked ")
    assert (tmp_path / "set" / "README.md").exists()


def test_a_set_without_a_prompt_says_so_and_where_the_reasons_are(tmp_path: Path) -> None:
    with scripted_endpoint() as server:  # nobody can read what it answers
        code, lines = make(server, tmp_path / "set", "count=2", "attempts=1", "tries=1")
    assert code == 0
    assert lines[0] == "asked 2 = accepted 0 + rejected 0 + failed 2"
    assert lines[-1].startswith("no item was accepted, so there is nothing to train on; ")
    assert str(tmp_path / "set" / "items.jsonl") in lines[-1]


def test_a_run_trains_on_the_folder(tmp_path: Path) -> None:
    from dynalign.rollout.prompts import load_prompts

    with scripted_endpoint(act=agents_act(good)) as server:
        make(server, tmp_path / "set", "count=10", "heldout_share=0.2")
    prompts = load_prompts(str(tmp_path / "set"))
    assert (len(prompts.train), len(prompts.heldout)) == (8, 2)


def test_a_changed_setting_is_refused_by_its_name(tmp_path: Path) -> None:
    with scripted_endpoint(act=agents_act(good)) as server:
        make(server, tmp_path / "set", "count=3")
        line = refusal(*asked(server, "count=3", "seed=1"), out=tmp_path / "set")
        assert "seed = 1: would mix two sets" in line
        assert "threshold" in refusal(*asked(server, "count=3", "threshold=80"), out=tmp_path / "set")


def test_bad_input_is_one_line_and_nothing_is_asked(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with scripted_endpoint(act=agents_act(good)) as server:
        base = asked(server)
        assert "count (command line) = 0" in refusal(*base, "count=0", out=tmp_path / "new")
        assert "notes.txt" in refusal(*base, out=tmp_path / "other")
        assert "is no folder" in refusal(*base, out=tmp_path / "file" / "set")
        poor = refusal(*base, "endpoint.budget_tokens=400", "critic.max_tokens=16", out=tmp_path / "new")
        assert "endpoint.budget_tokens" in poor
        assert not server.asked
    assert "must be a URL" in refusal("endpoint.address=nowhere", "endpoint.model=m", out=tmp_path / "new")
    assert not (tmp_path / "new" / "answers.sqlite").exists()


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.e2e)])
def test_a_set_that_is_killed_again_and_again_is_the_same_and_nothing_is_paid_twice(
    tmp_path: Path, kills: int
) -> None:
    generator = random.Random(kills)
    with scripted_endpoint(act=agents_act(mixed)) as server:
        make(server, tmp_path / "whole", "count=30")
    with scripted_endpoint(act=agents_act(mixed, pause_s=0.05)) as server:
        server_settings = asked(server, "count=30", "endpoint.concurrency=4")
        command = dynalign("prompts", "make", "--out", str(tmp_path / "set"), *server_settings)
        in_flight = 0
        for _ in range(kills):
            before = len(of_agents(server.billed))
            process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
            until = before + generator.randrange(1, max(2, 240 // kills))
            while process.poll() is None and len(of_agents(server.billed)) < until:
                time.sleep(0.01)
            process.kill()
            process.wait()
            in_flight += 4
        make(server, tmp_path / "set", "count=30", "endpoint.concurrency=4")
        billed = of_agents(server.billed)
    assert len(billed) <= len(set(billed)) + in_flight
    for name in ("prompts.jsonl", "items.jsonl", "prompts.parquet", "items.parquet"):
        assert (tmp_path / "set" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_at_the_wall_of_a_budget_the_set_is_written_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    with scripted_endpoint(act=agents_act(good)) as server:
        code, lines = make(server, tmp_path / "set", "count=20", "endpoint.budget_tokens=12000")
        assert code == 1
        assert any("budget" in line for line in lines)
        state = json.loads((tmp_path / "set" / "set.json").read_text())
        assert (state["complete"], state["ended"]) == (False, "budget_reached")
        assert make(server, tmp_path / "set", "count=20", "endpoint.budget_tokens=9000000")[0] == 0
        assert len(of_agents(server.billed)) == 60


def test_as_many_questions_are_in_flight_as_the_server_takes(tmp_path: Path) -> None:
    with scripted_endpoint(act=agents_act(good, pause_s=0.1)) as server:
        make(server, tmp_path / "set", "count=20", "endpoint.concurrency=6")
    assert server.most_at_once == 6
