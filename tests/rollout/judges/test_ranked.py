"""Rankings: one call orders the group, in a shuffled order that is undone, and places become scores."""

import asyncio
import json
import random
from statistics import fmean

from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign.endpoint.base import Question
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.judges.scoring import parse_order
from dynalign.rollout.records import Verdict
from tests.worlds.scripted_askers import DOWN, Says, asked, grade, made, questions

TEXTS = ["worth 10", "worth 40", "worth 20", "worth 30"]
RANKED = {"kind": "ranked", "models": ("gpt",)}


def shown(question: Question) -> list[str]:
    """The candidates of a question, in their order there."""
    parts = question.messages[0].content.split('<candidate number="')[1:]
    return [part.partition(">\n")[2].partition("\n</candidate>")[0] for part in parts]


def ordered(question: Question, reason: str = "because") -> str:
    """The verdict of a judge that knows what each answer is worth."""
    candidates = shown(question)
    order = sorted(range(len(candidates)), key=lambda index: candidates[index], reverse=True)
    return json.dumps({"rationale": reason, "order": [index + 1 for index in order]})


def judged(contexts: Contexts, says: Says, texts_G: list[str], **more: object) -> list[Verdict]:
    judge, _ = made(contexts, asked(gpt=says), **(RANKED | more))
    return asyncio.run(judge.score("a task", texts_G, 3))


def test_a_candidate_s_score_is_the_share_of_the_others_that_it_beats(contexts: Contexts) -> None:
    verdicts = judged(contexts, ordered, TEXTS)
    assert [verdict.score for verdict in verdicts] == [0.0, 5.0, 5 / 3, 10 / 3]
    assert {verdict.status for verdict in verdicts} == {"parsed"}


def test_the_order_is_shuffled_by_the_seed_and_undone_and_the_places_are_recorded(contexts: Contexts) -> None:
    askers = asked(gpt=ordered)
    judge, _ = made(contexts, askers, **RANKED)
    orders = set()
    for seed in range(12):
        verdicts = asyncio.run(judge.score("a task", TEXTS, seed))
        assert [verdict.score for verdict in verdicts] == [0.0, 5.0, 5 / 3, 10 / 3]
        seen = shown(questions(askers, "gpt")[-1])
        orders.add(tuple(seen))
        assert [verdict.opinions[0].position for verdict in verdicts] == [seen.index(text) for text in TEXTS]
    assert len(orders) > 6


def test_a_judge_that_likes_the_first_place_favours_no_candidate_over_many_groups(contexts: Contexts) -> None:
    def first_is_best(question: Question) -> str:
        return json.dumps({"rationale": "", "order": list(range(1, 1 + len(shown(question))))})

    judge, _ = made(contexts, asked(gpt=first_is_best), **RANKED)
    by_seed = [asyncio.run(judge.score("a task", TEXTS, seed)) for seed in range(400)]
    means = [fmean(verdicts[index].score or 0.0 for verdicts in by_seed) for index in range(4)]
    assert max(means) - min(means) < 0.6  # 5 points apart without the shuffle; one mean has an error of 0.09


def test_several_samples_are_several_shuffles_and_their_scores_are_averaged(contexts: Contexts) -> None:
    answers = random.Random(0)

    def any_order(question: Question) -> str:
        return json.dumps({"rationale": "", "order": answers.sample(range(1, 5), 4)})

    askers = asked(gpt=any_order)
    judge, _ = made(contexts, askers, **RANKED, samples=3, scorer="sampled")
    verdicts = asyncio.run(judge.score("a task", TEXTS, 3))
    assert len(questions(askers, "gpt")) == 3
    for verdict in verdicts:
        scores = [opinion.score for opinion in verdict.opinions]
        assert verdict.score == fmean(score for score in scores if score is not None)
        assert len(scores) == 3


def test_an_answer_without_text_is_last_and_is_not_shown(contexts: Contexts) -> None:
    askers = asked(gpt=ordered)
    judge, _ = made(contexts, askers, **RANKED)
    verdicts = asyncio.run(judge.score("a task", ["worth 10", "", "worth 20"], 3))
    assert [(verdict.score, verdict.status) for verdict in verdicts] == [
        (2.5, "parsed"),
        (0.0, "empty"),
        (5.0, "parsed"),
    ]
    assert len(shown(questions(askers, "gpt")[0])) == 2


def test_a_call_that_fails_and_an_order_that_cannot_be_read_are_two_things(contexts: Contexts) -> None:
    failed = judged(contexts, lambda question: DOWN, TEXTS)
    unread = judged(contexts, lambda question: '{"order": [1, 1, 2, 3]}', TEXTS)
    assert {(verdict.score, verdict.status) for verdict in failed} == {(None, "unreachable")}
    assert {(verdict.score, verdict.status) for verdict in unread} == {(None, "unparsed")}
    assert unread[0].text == '{"order": [1, 1, 2, 3]}'


def test_one_held_out_answer_alone_is_scored_on_the_absolute_scale(contexts: Contexts) -> None:
    (verdict,) = judged(contexts, lambda question: grade(4), ["an answer"], scorer="sampled")
    assert verdict.score == 4.0


def test_an_order_is_a_permutation_in_one_json_object_and_nothing_else() -> None:
    assert parse_order('{"rationale": "[3, 2, 1]", "order": [2, 3, 1]}', 3) == [2, 3, 1]
    for text in ("[2, 3, 1]", '{"order": [1, 2]}', '{"order": [1, 2, 2]}', '{"order": [true, 2, 3]}', "x"):
        assert parse_order(text, 3) is None
    assert parse_order('{"order": [1, 2, 3]} {"order": [3, 2, 1]}', 3) is None
    assert parse_order('{"order": [1, 2, 3], "order": [3, 2, 1]}', 3) is None


@given(text=st.text(), candidates=st.integers(1, 9))
@settings(max_examples=50)
def test_no_text_makes_an_order_raise(text: str, candidates: int) -> None:
    assert parse_order(text, candidates) is None or sorted(parse_order(text, candidates) or []) == list(
        range(1, candidates + 1)
    )
