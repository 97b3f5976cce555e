import asyncio
from pathlib import Path

import pytest

from dynalign.configs.errors import JournalError
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.algorithm import AlgorithmSettings
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.configs.sections.rollout import RolloutSettings
from dynalign.rollout.contexts import load_contexts
from dynalign.rollout.engine.base import EngineRequest, EngineResult
from dynalign.rollout.engine.deterministic import DeterministicEngine
from dynalign.rollout.group_maker import GroupMaker, GroupTask
from dynalign.rollout.judges.function import FunctionJudge
from dynalign.rollout.judges.make import make_judge
from dynalign.rollout.judges.reward_functions import short_words
from dynalign.rollout.judges.value_texts import load_value_texts
from dynalign.rollout.prompts import Prompt
from dynalign.rollout.records import Group
from tests.worlds.chat_models import chat_tokenizer
from tests.worlds.scripted_askers import asked
from tests.worlds.scripted_askers import made as judges_of

PROMPT = Prompt("p-1", "How can we share a well?", "governance", "train")


class CountingEngine(DeterministicEngine):
    """Keeps the requests."""

    def __init__(self, vocabulary: range, eos_id: int, label: str) -> None:
        super().__init__(vocabulary, eos_id, label)
        self.requests: list[EngineRequest] = []

    async def generate(self, request: EngineRequest) -> EngineResult:
        self.requests.append(request)
        return await super().generate(request)


def requests(by: GroupMaker) -> list[EngineRequest]:
    assert isinstance(by.engine, CountingEngine)
    return by.engine.requests


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    chat_tokenizer().save_pretrained(folder)
    return folder


def maker(
    folder: Path, version: int = 0, noise_fraction: float = 0.0, kept: bool = False, **rollout: object
) -> GroupMaker:
    usual = {"group_size": 4, "max_completion_tokens": 12, "mismatch_fraction": 0.0}
    settings = RolloutSettings.model_validate(usual | rollout)
    run = RunSettings(
        name="r",
        model="m",
        seed=5,
        rollout=settings,
        judge=JudgeSettings(noise_fraction=noise_fraction),
        algorithm=AlgorithmSettings(system_prompt="kept" if kept else "left_out"),
    )
    texts = load_value_texts(None, "unified", "expected")
    contexts = load_contexts(folder, texts.generation_system, "2026-01-01")
    engine = CountingEngine(range(97, 123), contexts.tokenizer.eos_token_id, f"1.{version}")
    judge = make_judge(engine, contexts, texts, run.judge, 10_000)
    return GroupMaker(run, "w", engine, judge, contexts, texts, lambda: version)


def made(by: GroupMaker, group_id: int = 3) -> Group:
    return asyncio.run(by.make(GroupTask(1, group_id, 0, 0, PROMPT, 100.0)))


def test_a_group_holds_its_candidates_with_tokens_log_probabilities_spans_and_verdicts(
    tokenizer_folder: Path,
) -> None:
    by = maker(tokenizer_folder, version=6)
    group = made(by)
    assert len(group.candidates_G) == 4
    for candidate in group.candidates_G:
        assert len(candidate.token_ids_T) == len(candidate.sampling_logprobs_T) == candidate.spans[-1].end
    assert {span.version for c in group.candidates_G for span in c.spans} == {6} == {group.judge_version}
    assert group.learning_context_ids == by.contexts.learning_context(PROMPT.prompt)
    assert group.definition_hash == by.texts.definition_hash


def test_candidates_are_sampled_in_the_sampling_context_each_with_its_own_seed(
    tokenizer_folder: Path,
) -> None:
    by = maker(tokenizer_folder)
    made(by)
    asked = requests(by)
    sampled = [each for each in asked if each.choice_ids is None and each.prefill_from is None]
    assert {request.token_ids for request in sampled} == {by.contexts.sampling_context(PROMPT.prompt)}
    assert len({request.seed for request in sampled}) == 4


def test_candidates_end_at_the_token_that_ends_a_turn_of_the_template(tmp_path: Path) -> None:
    chat_tokenizer(eos="<|endoftext|>").save_pretrained(tmp_path)
    by = maker(tmp_path)
    made(by)
    sampled = [each for each in requests(by) if each.choice_ids is None and each.prefill_from is None]
    assert {request.stop_ids for request in sampled} == {(258,)} == {by.contexts.stop_ids}


def test_the_same_draw_gives_the_same_group_and_another_draw_another_one(tokenizer_folder: Path) -> None:
    first, again, other = (made(maker(tokenizer_folder), group_id) for group_id in (3, 3, 4))
    assert first.scores_G == again.scores_G
    assert first.candidates_G != other.candidates_G


def test_the_gap_is_the_prompted_minus_the_plain_log_probability_of_the_first_candidates(
    tokenizer_folder: Path,
) -> None:
    by = maker(tokenizer_folder, gap_probes=2)
    group = made(by)
    assert [c.gap_tokens is not None for c in group.candidates_G] == [True, True, False, False]
    first = group.candidates_G[0]
    learning_ids = group.learning_context_ids
    request = EngineRequest(learning_ids + first.token_ids_T, prefill_from=len(learning_ids))
    plain = asyncio.run(by.engine.generate(request))
    gap_nats = sum(first.sampling_logprobs_T) - sum(plain.prefill_logprobs_T or ())
    assert first.gap_sum_nats == pytest.approx(gap_nats)
    assert first.gap_tokens == len(first.token_ids_T)


def test_a_candidate_sampled_under_an_older_version_has_both_sides_of_its_gap_measured_anew(
    tokenizer_folder: Path,
) -> None:
    by = maker(tokenizer_folder, gap_probes=1)
    by.current_step = lambda: 1  # the engine's label, and so the spans, still say 0
    made(by)
    prefilled = [request for request in requests(by) if request.prefill_from is not None]
    assert [request.prefill_from for request in prefilled] == [
        len(by.contexts.learning_context(PROMPT.prompt)),
        len(by.contexts.sampling_context(PROMPT.prompt)),
    ]


def test_with_the_system_prompt_kept_the_learner_s_context_is_the_one_that_sampled_and_the_gap_stays(
    tokenizer_folder: Path,
) -> None:
    rollout = {"gap_probes": 1, "record_behaviour": True}
    plain, kept = (maker(tokenizer_folder, kept=flag, **rollout) for flag in (False, True))
    left_out = made(plain)
    group = made(kept)
    context_ids = kept.contexts.sampling_context(PROMPT.prompt)
    assert group.learning_context_ids == context_ids
    assert left_out.learning_context_ids == kept.contexts.learning_context(PROMPT.prompt) != context_ids
    assert group.candidates_G[0].gap_sum_nats == left_out.candidates_G[0].gap_sum_nats is not None
    assert [c.token_ids_T for c in group.candidates_G] == [c.token_ids_T for c in left_out.candidates_G]
    # One version has sampled and scored: b is what was sampled, and only the gap's plain side is asked for.
    assert [c.behaviour_logprobs_T for c in group.candidates_G] == [
        c.sampling_logprobs_T for c in group.candidates_G
    ]
    assert len([request for request in requests(kept) if request.prefill_from is not None]) == 1


def test_with_the_system_prompt_kept_an_older_version_s_tokens_are_asked_for_in_the_sampling_context(
    tokenizer_folder: Path,
) -> None:
    by = maker(tokenizer_folder, kept=True, gap_probes=0, record_behaviour=True)
    by.current_step = lambda: 1  # the engine's label, and so the spans, still say 0
    made(by)
    prefilled = [request for request in requests(by) if request.prefill_from is not None]
    assert {request.prefill_from for request in prefilled} == {
        len(by.contexts.sampling_context(PROMPT.prompt))
    }
    assert len(prefilled) == 4


def recorded(group: Group) -> list[bool]:
    return [candidate.behaviour_logprobs_T is not None for candidate in group.candidates_G]


def test_the_engine_s_plain_log_probabilities_of_a_probed_candidate_are_kept_at_no_further_cost(
    tokenizer_folder: Path,
) -> None:
    by = maker(tokenizer_folder, gap_probes=1)
    group = made(by)
    assert recorded(group) == [True, False, False, False]
    assert len([request for request in requests(by) if request.prefill_from is not None]) == 1


def test_a_seeded_share_of_the_candidates_is_recorded_in_a_run_without_probes(tokenizer_folder: Path) -> None:
    by = maker(tokenizer_folder, gap_probes=0, mismatch_fraction=0.25)
    shares = [recorded(made(by, group_id)) for group_id in range(25)]
    assert 10 < sum(map(sum, shares)) < 40  # of 100 candidates
    assert shares[3] == recorded(made(maker(tokenizer_folder, gap_probes=0, mismatch_fraction=0.25), 3))
    assert not any(recorded(made(maker(tokenizer_folder, gap_probes=0))))


def raises(prompt: str, completion: str) -> float:
    raise ZeroDivisionError(f"{len(completion)} characters")


def test_what_a_function_of_the_user_s_does_not_score_is_counted_with_its_last_cause(
    tokenizer_folder: Path,
) -> None:
    judge = JudgeSettings(kind="function", function="tests.rollout.test_group_maker:raises")
    by = maker(tokenizer_folder)
    assert (made(by).withheld_reason, by.judge_failures, by.judge_failure) == (None, 0, "")
    by.run = by.run.model_copy(update={"judge": judge})
    by.judge = FunctionJudge(raises, "tests.rollout.test_group_maker:raises")
    group = made(by)
    assert group.withheld_reason == "judge_unreachable"
    assert by.judge_failures == 4
    assert by.judge_failure.startswith("judge.function tests.rollout.test_group_maker:raises raised ZeroDiv")


def test_why_a_judge_could_not_be_reached_is_told_of_a_group_that_is_withheld_for_it(
    tokenizer_folder: Path,
) -> None:
    by = maker(tokenizer_folder)
    asked_models = asked(gpt=lambda question: JournalError("answers.sqlite", "SQLite says: disk is full"))
    by.judge, _ = judges_of(by.contexts, asked_models, kind="external", models=("gpt",))
    group = made(by)
    assert group.withheld_reason == "judge_unreachable"
    assert (by.judge_failures, by.judge_failure) == (0, "answers.sqlite: SQLite says: disk is full")


def test_behaviour_is_recorded_for_every_candidate_when_asked_for(tokenizer_folder: Path) -> None:
    group = made(maker(tokenizer_folder, record_behaviour=True, gap_probes=0))
    assert all(len(c.behaviour_logprobs_T or ()) == len(c.token_ids_T) for c in group.candidates_G)


def test_the_noise_probe_scores_the_same_candidates_again_without_cached_key_values(
    tokenizer_folder: Path,
) -> None:
    by = maker(tokenizer_folder, noise_fraction=1.0)
    group = made(by)
    verdicts = [request for request in requests(by) if request.choice_ids is not None]
    assert [request.fresh for request in verdicts] == [False] * 4 + [True] * 4
    assert [c.verdict.score_again for c in group.candidates_G] == list(group.scores_G)
    assert group.noise_std == 0.0
    assert made(maker(tokenizer_folder, noise_fraction=0.0)).noise_std is None


def test_the_held_out_answer_depends_on_its_context_and_repeats(tokenizer_folder: Path) -> None:
    by = maker(tokenizer_folder)
    plain, again, prompted = (asyncio.run(by.heldout(PROMPT, flag)) for flag in (False, False, True))
    assert plain == again
    assert plain.completion != prompted.completion
    assert plain.prompt_tokens == len(by.contexts.learning_context(PROMPT.prompt)) < prompted.prompt_tokens
    assert (plain.version_min, plain.version_max) == (0, 0)


def test_a_held_out_answer_is_of_the_versions_of_its_tokens_and_of_the_policy_s_verdict(
    tokenizer_folder: Path,
) -> None:
    by = maker(tokenizer_folder)
    scored_under = 7
    by.current_step = lambda: scored_under
    answer = asyncio.run(by.heldout(PROMPT, False))
    assert (answer.version_min, answer.version_max) == (0, scored_under)
    by.judge = FunctionJudge(short_words, "short_words")
    answer = asyncio.run(by.heldout(PROMPT, False))
    assert (answer.version_min, answer.version_max) == (0, 0)
