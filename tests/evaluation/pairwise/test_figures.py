import pytest

from dynalign.evaluation.pairwise.figures import family, pair_figures
from dynalign.evaluation.pairwise.records import Label
from tests.worlds.planted_pairs import comparison

ALWAYS_FIRST: list[tuple[Label, Label]] = [("win", "loss")] * 40


def test_a_judge_that_always_says_first_is_unusable_at_50_percent() -> None:
    figures = pair_figures(comparison(ALWAYS_FIRST))
    assert figures.win_rate is not None
    assert figures.win_rate.mean == 0.5
    (judge,) = figures.judges
    assert judge.position.bias is not None
    assert judge.position.bias.mean == 0.5
    assert judge.position.flips == 40
    assert judge.unusable == "it prefers what is shown first (40 of 40 flip)"
    assert figures.warnings == (f"judge 0 is unusable as a judge here: {judge.unusable}",)


def test_a_judge_whose_verdicts_flip_more_than_a_coins_is_unusable_also_without_a_bias() -> None:
    by_turns: list[tuple[Label, Label]] = [("win", "loss"), ("loss", "win")] * 5
    (judge,) = pair_figures(comparison([*by_turns[:9], ("win", "win")])).judges
    assert judge.position.bias is not None
    assert abs(judge.position.bias.mean) <= 0.1
    assert judge.unusable == "9 of 10 verdicts flip with the order, more than a coin's would"
    (half,) = pair_figures(comparison([*by_turns[:6], *[("win", "win")] * 5])).judges
    assert half.unusable is None


def test_a_better_model_wins_and_equal_ones_straddle_50_percent() -> None:
    better = pair_figures(comparison([("win", "win")] * 70 + [("loss", "loss")] * 30)).win_rate
    assert better is not None
    assert better.low is not None
    assert better.low > 0.5
    equal = pair_figures(comparison([("win", "win")] * 50 + [("loss", "loss")] * 50)).win_rate
    assert equal is not None
    assert equal.low is not None
    assert equal.high is not None
    assert equal.low < 0.5 < equal.high


def test_an_unread_verdict_is_counted_and_never_a_win() -> None:
    labels: list[tuple[Label, Label]] = [("win", "win")] * 2 + [("win", "unread"), ("refused", "win")]
    figures = pair_figures(comparison(labels))
    assert figures.win_rate is not None
    assert (figures.win_rate.mean, figures.win_rate.n) == (1.0, 2)
    assert (figures.unread_prompts, figures.worst, figures.best) == (2, 0.5, 1.0)
    counts = figures.judges[0].counts
    assert (counts.wanted, counts.read, counts.unread, counts.refused) == (8, 6, 1, 1)


def test_a_judge_that_answers_nonsense_leaves_no_figure() -> None:
    figures = pair_figures(comparison([("unread", "unread")] * 5))
    assert (figures.win_rate, figures.bootstrap, figures.alpha) == (None, None, None)
    assert figures.judges[0].unusable == "10 of its 10 answers cannot be read"


def test_judges_that_contradict_each_other_are_said() -> None:
    one: list[tuple[Label, Label]] = [("win", "win"), ("loss", "loss")] * 20
    other: list[tuple[Label, Label]] = [("win", "win"), ("win", "win")] * 20
    figures = pair_figures(comparison(one, other, other), families=("qwen", "qwen", "gpt", "qwen", "llama"))
    assert figures.win_rate is not None
    assert figures.win_rate.mean == pytest.approx((1 + 2 / 3) / 2)
    assert figures.without_one == (0.75, 1.0)
    assert figures.agree_JJ == ((1.0, 0.5, 0.5), (0.5, 1.0, 1.0), (0.5, 1.0, 1.0))
    assert figures.alpha is not None
    assert figures.alpha.mean < 0.4
    assert any("agree little" in warning for warning in figures.warnings)
    assert any("judge 1 judges its own family (qwen: A and B)" in each for each in figures.warnings)


def test_the_family_is_read_off_the_name() -> None:
    names = ["Qwen/Qwen3-14B", "gpt-oss-20b", "models/SmolLM2-135M/", "meta-llama/Llama-3.1-8B", "123"]
    assert [family(name) for name in names] == ["qwen", "gpt", "smollm", "llama", ""]
