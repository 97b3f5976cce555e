"""What is remembered of a judge check, and the line that a run is warned with."""

from pathlib import Path

import pytest

from dynalign.configs.load import load_run
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.launch.checked_judges import CheckedJudge, judge_notes, recall, remember

CONTENT = {"model: weights": "aa", "judge.values: rubric": "bb"}
FOUND = CheckedJudge(0.61, 0.48, 0.0, 16, "2026-12-01", "runs/quickstart-judge/judge.html")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def notes(*overrides: str) -> tuple[str, ...]:
    return judge_notes(load_run("quickstart", overrides).settings, CONTENT)


def test_a_finding_is_recalled_for_the_same_model_rubric_and_way_of_scoring_alone() -> None:
    judge = JudgeSettings()
    remember(CONTENT, judge, FOUND)
    assert recall(CONTENT, judge) == FOUND
    assert recall(dict(reversed(CONTENT.items())), JudgeSettings(noise_fraction=0.5)) == FOUND
    assert recall(CONTENT | {"model: weights": "cc"}, judge) is None
    assert recall(CONTENT, JudgeSettings(scorer="sampled")) is None


def test_the_newest_finding_replaces_the_one_before_and_a_damaged_one_counts_as_none(tmp_path: Path) -> None:
    judge = JudgeSettings()
    remember(CONTENT, judge, FOUND)
    better = CheckedJudge(0.9, 0.8, 0.0, 16, "2026-12-02", "card")
    remember(CONTENT, judge, better)
    assert recall(CONTENT, judge) == better
    (file,) = (tmp_path / "cache" / "dynalign" / "checked-judges").iterdir()
    for damaged in ("{", "[1]", '{"auc": 1}', "\xff"):
        file.write_text(damaged, encoding="latin-1")
        assert recall(CONTENT, judge) is None


def test_a_run_with_its_own_judge_is_told_what_is_known_of_it_in_one_line() -> None:
    (never,) = notes()
    assert "was never checked" in never
    remember(CONTENT, JudgeSettings(), FOUND)
    (below,) = notes()
    assert (
        "its AUC is 0.61 (lower end 0.48, 16 prompts), and should be 0.75 with a lower end above 0.6" in below
    )
    assert FOUND.card in below
    assert "\n" not in below
    remember(CONTENT, JudgeSettings(), CheckedJudge(None, None, 1.0, 16, "2026-12-01", "card"))
    (unmeasured,) = notes()
    assert "its AUC could not be measured, and should be" in unmeasured
    remember(CONTENT, JudgeSettings(), CheckedJudge(0.8, 0.61, 0.05, 16, "2026-12-01", "card"))
    assert notes() == ()
    remember(CONTENT, JudgeSettings(), CheckedJudge(0.8, 0.61, 0.47, 16, "2026-12-01", "card"))
    (unread,) = notes()
    assert "47% of its scores could not be read, and at most 5% should be" in unread


def test_a_function_is_no_judge_to_warn_of_and_an_unknown_model_is_not_guessed_at() -> None:
    function = "judge.function=dynalign.rollout.judges.reward_functions:short_question"
    assert notes("judge.kind=function", function) == ()
    assert judge_notes(load_run("quickstart").settings, {}) == ()


def test_without_a_folder_for_caches_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-this-name/cache")
    remember(CONTENT, JudgeSettings(), FOUND)
    assert recall(CONTENT, JudgeSettings()) is None
