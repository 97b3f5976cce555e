"""Reading and measuring the prompts of a run: once, and with a sign of progress."""

import json
from pathlib import Path

import pytest

from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.launch.prompt_check import SlowWork, long_prompts, prompts_of
from dynalign.rollout.contexts import load_contexts
from dynalign.rollout.prompt_lengths import FEW


def settings(source: str, *overrides: str) -> RunSettings:
    return load_run("quickstart", [f"prompts.source={source}", *overrides]).settings


def test_slow_work_speaks_after_two_seconds_and_then_every_five() -> None:
    times = iter([0.0, 1.9, 2.0, 2.0, 6.9, 7.0, 7.0])
    said: list[str] = []
    work = SlowWork("prompts read", lambda: next(times), said.append)
    for done in (10_000, 20_000, 30_000, 1_040_000):
        work(done)
    assert said == ["20,000 prompts read", "1,040,000 prompts read"]


def test_a_file_is_read_again_only_if_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a"}\n')
    run = settings(str(file))
    first = prompts_of(run)
    assert prompts_of(run) is first
    file.write_text('{"prompt": "another"}\n')
    assert prompts_of(run).train[0].prompt == "another"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.worlds.chat_models import tiny_chat_model

    return tiny_chat_model(tmp_path_factory.mktemp("chat"))


def test_many_prompts_that_fit_are_remembered_until_anything_changes(
    chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"What is {n}?"}) + "\n" for n in range(FEW + 1)))
    contexts = load_contexts(chat_model, "Be kind.", "2026-01-31")
    run = settings(str(file))
    assert long_prompts(run, chat_model, contexts, prompts_of(run)) == []
    (mark,) = (tmp_path / "dynalign" / "prompts-that-fit").iterdir()
    written_ns = mark.stat().st_mtime_ns
    assert long_prompts(run, chat_model, contexts, prompts_of(run)) == []
    assert mark.stat().st_mtime_ns == written_ns
    narrow = settings(str(file), "prompts.max_tokens=20")
    long = long_prompts(narrow, chat_model, contexts, prompts_of(narrow))
    assert len(long) == 21
    assert long[-1].rule == f"{FEW + 1 - 20} more prompts are longer than prompts.max_tokens=20"
    assert len(list(mark.parent.iterdir())) == 1
