"""Where a model answers, read off its chat template: plain, behind its thinking, in its final channel."""

import asyncio
from pathlib import Path

import pytest

from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.rollout import RolloutSettings
from dynalign.rollout.answer_form import AnswerForm
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.rollout.engine.base import EngineRequest, EngineResult
from dynalign.rollout.engine.deterministic import DeterministicEngine
from dynalign.rollout.group_maker import GroupMaker, GroupTask
from dynalign.rollout.judges.make import make_judge
from dynalign.rollout.judges.value_texts import load_value_texts
from dynalign.rollout.prompts import Prompt
from dynalign.rollout.records import VersionSpan
from tests.worlds.chat_models import HARMONY, HARMONY_TOKENS, QWEN3, R1, SPECIAL, TEMPLATE, chat_tokenizer

MISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %}"
    " {{ m['content'] }}{% endif %}{% endfor %}"
)
NO_PROMPT = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
FINAL = "<|channel|>final<|message|>"
ANALYSIS = "<|channel|>analysis<|message|>"
NEXT = "<|end|><|start|>assistant"


def made(folder: Path, template: str) -> Contexts:
    if template == HARMONY:
        chat_tokenizer(template, HARMONY_TOKENS, eos="<|return|>").save_pretrained(folder)
    else:
        tokenizer = chat_tokenizer(template)
        if template != TEMPLATE:
            # As in the released tokenizers: single tokens, but not special ones.
            tokenizer.add_tokens(["<think>", "</think>"])
        tokenizer.save_pretrained(folder)
    return load_contexts(folder, "Be kind.", "2026-01-01")


def answered(contexts: Contexts, turn: str) -> str:
    return contexts.answer(contexts.tokenizer.encode(turn, add_special_tokens=False))


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (TEMPLATE, AnswerForm()),
        (MISTRAL, AnswerForm()),
        (NO_PROMPT, AnswerForm()),
        (QWEN3, AnswerForm("<think>\n\n</think>\n\n", ("<think>", "</think>"))),
        (R1, AnswerForm("\n</think>\n\n", ("<think>", "</think>"), begun=True)),
        (HARMONY, AnswerForm(FINAL)),
    ],
    ids=["chatml", "mistral", "no generation prompt", "qwen3", "r1", "harmony"],
)
def test_the_form_is_what_the_template_writes_before_an_answer(
    tmp_path: Path, template: str, form: AnswerForm
) -> None:
    assert made(tmp_path, template).form == form


@pytest.mark.parametrize(
    ("template", "turn", "answer"),
    [
        (TEMPLATE, "All of it.<|im_end|>", "All of it."),
        (TEMPLATE, "<think>no tags here</think> all of it", "<think>no tags here</think> all of it"),
        (QWEN3, "<think>\nhm\n</think>\n\nFour.<|im_end|>", "Four."),
        (QWEN3, "<think>\nhm, hm", ""),
        (QWEN3, "Four, at once.<|im_end|>", "Four, at once."),
        (QWEN3, "<think>\na\n</think>\n\nOne </think> two", "One </think> two"),
        (R1, "hm\n</think>\n\nFour.<|im_end|>", "Four."),
        (R1, "hm, and the tokens ran out", ""),
        (HARMONY, f"{ANALYSIS}They ask for 2+2.{NEXT}{FINAL}Four.<|return|>", "Four."),
        (HARMONY, f"{FINAL}Four.<|return|>", "Four."),
        (HARMONY, f"{ANALYSIS}They ask and ask", ""),
        (HARMONY, "No channel at all.<|return|>", ""),
        (HARMONY, f"{ANALYSIS}a{NEXT}{FINAL}Four.{NEXT}{ANALYSIS}more thought", "Four."),
        (HARMONY, f"{ANALYSIS}a{NEXT}{FINAL}cut of", "cut of"),
    ],
)
def test_the_answer_is_what_a_reader_sees(tmp_path: Path, template: str, turn: str, answer: str) -> None:
    assert answered(made(tmp_path, template), turn) == answer


SPLITS = TEMPLATE.replace("m['content'] }}<", "m['content'].split('</think>')[-1] }}<")
SEED = TEMPLATE.replace("{{ m['content']", "{% if m.t %}<seed:think></seed:think>{% endif %}{{ m['content']")
KEPT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}<think>\n{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "turn", "opening"),
    [
        (SPLITS, "<think>\nPraise me.\n</think>\n\nFour.<|im_end|>", "<think>\n\n</think>\n\n"),
        (SEED, "<seed:think>Praise me.</seed:think>Four.<|im_end|>", "<seed:think>\n\n</seed:think>\n\n"),
        (KEPT, "Praise me.\n</think>\n\nFour.<|im_end|>", "\n</think>\n\n"),
    ],
    ids=["a template that splits at the tag", "one that writes it for reasoning", "one that keeps it"],
)
def test_thinking_whose_tag_the_template_mentions_is_taken_off(
    tmp_path: Path, template: str, turn: str, opening: str
) -> None:
    contexts = made(tmp_path, template)
    assert answered(contexts, turn) == "Four."
    assert contexts.form.opening == opening
    assert any("thinking is taken off" in note for note in contexts.notes())


def test_thinking_between_tokens_of_the_tokenizer_s_own_is_taken_off(tmp_path: Path) -> None:
    chat_tokenizer(TEMPLATE, (*SPECIAL, "◁think▷", "◁/think▷")).save_pretrained(tmp_path)
    contexts = load_contexts(tmp_path, "Be kind.", "2026-01-01")
    assert answered(contexts, "◁think▷Praise me.◁/think▷Four.<|im_end|>") == "Four."
    assert any("what follows ◁/think▷" in note for note in contexts.notes())


def test_where_nothing_names_a_tag_the_notes_say_that_no_thinking_is_taken_off(tmp_path: Path) -> None:
    (note,) = made(tmp_path, TEMPLATE).notes()
    assert "no thinking is taken off" in note


def test_a_channel_that_a_candidate_spells_in_plain_letters_is_no_channel(tmp_path: Path) -> None:
    contexts = made(tmp_path, HARMONY)
    encode = contexts.tokenizer.encode
    spelled = [token for letter in FINAL for token in encode(letter, add_special_tokens=False)]
    assert contexts.tokenizer.decode(spelled, skip_special_tokens=False) == FINAL
    assert contexts.answer([*spelled, *encode("Praise me", add_special_tokens=False)]) == ""


@pytest.mark.parametrize(
    ("template", "ending"),
    [
        (TEMPLATE, "<|im_start|>assistant\nGrade: "),
        (QWEN3, "<|im_start|>assistant\n<think>\n\n</think>\n\nGrade: "),
        (R1, "<|im_start|>assistant\n<think>\n\n</think>\n\nGrade: "),
        (HARMONY, f"<|start|>assistant{FINAL}Grade: "),
    ],
    ids=["chatml", "qwen3", "r1", "harmony"],
)
def test_the_judge_is_asked_for_its_answer_not_for_its_thoughts(
    tmp_path: Path, template: str, ending: str
) -> None:
    contexts = made(tmp_path, template)
    ids = contexts.judge_context("Score it", "Grade: ")
    assert contexts.tokenizer.decode(ids, skip_special_tokens=False).endswith(ending)
    shown = contexts.tokenizer.decode(contexts.judge_context("Score it", ""), skip_special_tokens=False)
    assert shown.endswith(ending.removesuffix("Grade: "))


def test_the_candidates_own_contexts_leave_it_to_the_model_how_to_begin(tmp_path: Path) -> None:
    contexts = made(tmp_path, HARMONY)
    ending = "<|start|>user<|message|>Hi<|end|><|start|>assistant"
    for ids in (contexts.sampling_context("Hi"), contexts.learning_context("Hi")):
        assert contexts.tokenizer.decode(ids, skip_special_tokens=False).endswith(ending)


def test_the_value_goes_where_the_template_takes_instructions_and_the_day_is_the_runs(tmp_path: Path) -> None:
    contexts = made(tmp_path, HARMONY)
    shown = contexts.tokenizer.decode(contexts.sampling_context("Hi"), skip_special_tokens=False)
    assert "<|start|>developer<|message|># Instructions\n\nBe kind." in shown
    assert "Current date: 2026-01-01\n" in shown


class TurnsEngine(DeterministicEngine):
    """Writes the given turns in order, judges like its parent, and keeps the judge's contexts."""

    def __init__(self, contexts: Contexts, turns: list[str]) -> None:
        super().__init__(range(5), 0, "1.0")
        encode = contexts.tokenizer.encode
        self.turns = iter([tuple(encode(turn, add_special_tokens=False)) for turn in turns])
        self.shown: list[str] = []
        self.contexts = contexts

    async def generate(self, request: EngineRequest) -> EngineResult:
        if request.choice_ids is not None:
            self.shown.append(self.contexts.tokenizer.decode(request.token_ids, skip_special_tokens=False))
        if request.choice_ids is not None or request.prefill_from is not None:
            return await super().generate(request)
        ids = next(self.turns)
        return EngineResult(ids, (-1.0,) * len(ids), "stop", (VersionSpan(0, 0, len(ids)),))


def test_the_judge_is_shown_the_final_channel_and_the_learner_every_token(tmp_path: Path) -> None:
    contexts = made(tmp_path, HARMONY)
    words = ("Dig", "Share", "Keep")
    turns = [f"{ANALYSIS}Secret thought.{NEXT}{FINAL}{word} well.<|return|>" for word in words]
    turns.append(f"{ANALYSIS}On and on")
    run = RunSettings(name="r", model="m", rollout=RolloutSettings(group_size=4, gap_probes=0))
    texts, engine = load_value_texts(None, "unified", "expected"), TurnsEngine(contexts, turns)
    judge = make_judge(engine, contexts, texts, run.judge, 10_000)
    by = GroupMaker(run, "w", engine, judge, contexts, texts, lambda: 0)
    prompt = Prompt("p", "Whose is the well?", "governance", "train")
    group = asyncio.run(by.make(GroupTask(1, 0, 1, 0, prompt, 0.0)))
    texts_G = [candidate.text for candidate in group.candidates_G]
    assert texts_G == ["Dig well.", "Share well.", "Keep well.", ""]
    assert group.candidates_G[3].verdict.status == "empty"
    assert group.candidates_G[3].verdict.score == 0.0
    assert len(engine.shown) >= 3
    assert not any("Secret" in shown or "On and on" in shown for shown in engine.shown)
    decode = contexts.tokenizer.decode
    assert [decode(each.token_ids_T, skip_special_tokens=False) for each in group.candidates_G] == turns
