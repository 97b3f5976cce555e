"""What `check` refuses of a judge: nobody can be asked, texts are missing, contexts are too short."""

import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from dynalign.launch.preflight import asker_names, check
from dynalign.launch.resume.open_run import open_run
from tests.launch.test_preflight import _alone, run

__all__ = ["_alone"]


@pytest.mark.parametrize(
    ("overrides", "place", "rule"),
    [
        (["judge.kind=frozen"], "judge.kind", "which the rollout engines do not hold once they train"),
        (["judge.veto=[frozen]"], "judge.veto", "which the rollout engines do not hold once they train"),
        (["judge.kind=external", "judge.models=[gpt]"], "judge.models", "no endpoint or pool has this name"),
        (["judge.probes=[gpt]"], "judge.probes", "no endpoint or pool has this name"),
    ],
)
def test_a_judge_that_nobody_can_ask_is_one_line_and_nothing_starts(
    overrides: list[str], place: str, rule: str
) -> None:
    (mistake,) = check(open_run(run(*overrides))).mistakes
    assert mistake.place == place
    assert rule in mistake.rule


def test_with_an_adapter_the_engines_hold_the_initial_policy_and_need_no_pool() -> None:
    adapter = ["learner.lora={}", "weights.content=adapter", "weights.transport=object_store"]
    assert check(open_run(run("judge.kind=frozen", *adapter))).mistakes == []


def test_a_pool_holds_the_initial_policy_for_a_frozen_judge() -> None:
    assert check(open_run(run("judge.kind=frozen", "judge.pool={}"))).mistakes == []
    assert asker_names(run("judge.pool={}").settings) == ("frozen",)
    assert asker_names(run("judge.pool={model: other}").settings) == ("pool",)


def test_every_text_of_a_panel_that_is_missing_empty_or_no_text_is_a_line(tmp_path: Path) -> None:
    values = Path(shutil.copytree(str(files("dynalign.rollout").joinpath("values")), tmp_path / "values"))
    (values / "stance_harm.txt").write_text(" \n")
    (values / "stance_asker.txt").write_bytes(b"caf\xe9")
    (values / "panel_round.txt").write_text("{own} and nobody else")
    panel = ["judge.kind=panel", "judge.scorer=sampled", "judge.stances=[asker, harm, absent]"]
    mistakes = check(open_run(run(*panel, "judge.values=values"))).mistakes
    assert [(Path(mistake.place).name, mistake.rule) for mistake in mistakes] == [
        ("stance_asker.txt", "byte 3 is not UTF-8"),
        ("stance_harm.txt", "is empty"),
        ("stance_absent.txt", "cannot be read (No such file or directory)"),
        ("panel_round.txt", "{others} stands there 0 times, not once"),
    ]


def test_a_model_whose_context_does_not_hold_what_a_ranking_reads_is_refused_with_the_figure() -> None:
    asked = ["judge.kind=ranked", "rollout.max_completion_tokens=512", "learner.token_budget=4096"]
    (mistake,) = check(open_run(run(*asked))).mistakes
    assert mistake.place == "model"
    assert "for rollout.group_size candidates at once" in mistake.rule
