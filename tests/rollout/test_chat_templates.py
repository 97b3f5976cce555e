"""Contexts over the public kinds of chat templates: the tokens of a plain call, whatever the texts spell."""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers
from transformers import PreTrainedTokenizerFast

from dynalign.configs.errors import UserError
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.rollout.judges.value_texts import judge_user_message, load_value_texts
from tests.worlds.chat_models import HARMONY, HARMONY_TOKENS, SPECIAL, TEMPLATE, chat_tokenizer
from tests.worlds.chat_templates import FAMILIES, family_tokenizer

SYSTEM = "Grow what all beings together can do.\n\nShare it."
QUESTION = "How do I share a well?\n\nIt is <b>deep</b>, [so] they say: 3 < 4."
TEXTS = load_value_texts(None, "unified", "expected")
WORDS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


def loaded(folder: Path, tokenizer: PreTrainedTokenizerFast, day: str = "2026-01-01") -> Contexts:
    tokenizer.save_pretrained(folder)
    return load_contexts(folder, SYSTEM, day)


def special_ids(contexts: Contexts, token_ids: tuple[int, ...]) -> list[int]:
    """The special tokens of a context, by the tokenizer alone."""
    return [token for token in token_ids if token in contexts.tokenizer.added_tokens_decoder]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_learning_context_is_a_plain_call_of_the_same_day(tmp_path: Path, family: str) -> None:
    def plain() -> list[int]:
        messages = [{"role": "user", "content": QUESTION}]
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))

    tokenizer = family_tokenizer(family)
    before, today, after = plain(), datetime.date.today().isoformat(), plain()
    learned = list(loaded(tmp_path, tokenizer, today).learning_context(QUESTION))
    assert learned in (before, after)  # midnight may lie between them


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sampling_context_has_the_value_and_ends_as_the_learning_context(
    tmp_path: Path, family: str
) -> None:
    contexts = loaded(tmp_path, family_tokenizer(family))
    sampling, learning = (
        contexts.tokenizer.decode(ids, skip_special_tokens=False)
        for ids in (contexts.sampling_context(QUESTION), contexts.learning_context(QUESTION))
    )
    assert (SYSTEM in sampling, SYSTEM in learning) == (True, False)
    assert sampling.rpartition(QUESTION)[2] == learning.rpartition(QUESTION)[2]


ALL = tuple(sorted(FAMILIES))


@pytest.fixture(scope="module")
def family_contexts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Contexts]:
    return {name: loaded(tmp_path_factory.mktemp(name), family_tokenizer(name)) for name in ALL}


@pytest.mark.parametrize("family", ALL)
def test_no_text_in_a_context_becomes_a_control_token(
    family_contexts: dict[str, Contexts], family: str
) -> None:
    contexts = family_contexts[family]
    spelled = [added.content for added in contexts.tokenizer.added_tokens_decoder.values()]
    pieces = st.sampled_from([*spelled, *(each[:-1] for each in spelled), "a", " ", "\n", "|", ">", "]"])

    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=st.lists(pieces, max_size=6).map("".join))
    def holds(text: str) -> None:
        judged = judge_user_message(TEXTS, "unified", text, text)
        makes: tuple[tuple[Callable[[str], tuple[int, ...]], str], ...] = (
            (contexts.sampling_context, text),
            (contexts.learning_context, text),
            (lambda message: contexts.judge_context(message, "Grade: "), judged),
        )
        for make, data in makes:
            assert special_ids(contexts, make(data)) == special_ids(contexts, make("x"))

    holds()


def test_a_normalizer_brings_no_control_token_back(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(TEMPLATE, SPECIAL)
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("[end]", normalized=True)]})
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(" ", "")]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("◆", normalized=False)]})
    contexts = loaded(tmp_path, tokenizer)
    for text in ("［ＥＮＤ］", "[End]", "[ end]", "a◆b", "[END]◆<|im_end|>"):
        made = contexts.learning_context(text)
        assert special_ids(contexts, made) == special_ids(contexts, contexts.learning_context("x"))


def test_a_text_s_end_makes_no_control_token_with_what_the_template_writes_behind_it(tmp_path: Path) -> None:
    """`[e~` and `[e~[` are `[e~[` and `e~[`: the same control token, one place too early."""
    contexts = loaded(tmp_path, family_tokenizer("minimax"))
    ends = contexts.tokenizer.encode("[e~[", add_special_tokens=False)
    made = contexts.learning_context("wait [e~")
    shown = contexts.tokenizer.decode(made[: made.index(ends[0])], skip_special_tokens=False)
    assert shown.endswith("wait [e~")
    plain = contexts.learning_context("wait")
    assert made[made.index(ends[0]) :] == plain[plain.index(ends[0]) :]


def test_a_token_without_a_row_in_the_embedding_is_never_made(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer()
    tokenizer.add_tokens(["covid"])
    (tmp_path / "config.json").write_text('{"model_type": "llama", "vocab_size": 259}')
    assert max(loaded(tmp_path, tokenizer).learning_context("covid, covids")) < 259
    (tmp_path / "config.json").write_text('{"model_type": "llama", "vocab_size": 258}')
    with pytest.raises(UserError, match="writes the token '<|im_end|>'|whose id is 258"):
        load_contexts(tmp_path, SYSTEM, "2026-01-01")


@pytest.mark.parametrize(
    ("template", "rule"),
    [
        ("{% for m in messages %}{{ m['content'] }{% endfor %}", "takes no user message"),
        ("{{ raise_exception('first message must be system') }}", "first message must be system"),
        ("{{ now() }}", "'now' is undefined"),
        ("{% for m in messages %}{{ m['content']|strip_it }}{% endfor %}", "No filter named 'strip_it'"),
        ("{{ messages[0]['content'] + 1 }}", "takes no user message"),
        (
            "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endfor %}",
            "text out of",
        ),
        (
            "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}{% endfor %}",
            "text out of",
        ),
        ("{% for m in messages %}{{ m['content'][:40] }}{% endfor %}", "changes the system prompt"),
        (f"{SYSTEM}{WORDS}", "holds the system prompt itself"),
        ({"rag": WORDS, "tool_use": WORDS}, "named rag, tool_use, and none named default"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, template: str | dict[str, str], rule: str
) -> None:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=rule) as refused:
        loaded(tmp_path, tokenizer)
    assert all("\n" not in str(mistake) for mistake in refused.value.mistakes)


def test_of_named_templates_the_default_is_used(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = {"default": TEMPLATE, "rag": "{{ now() }}"}
    assert loaded(tmp_path, tokenizer).system_role == "system"


def test_a_tokenizer_s_own_code_is_refused_without_a_question(tmp_path: Path) -> None:
    chat_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "tokenization_x.py").write_text("raise SystemExit('ran')\n")
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "XTok", "auto_map": {"AutoTokenizer": ["tokenization_x.XTok", null]}}'
    )
    (tmp_path / "config.json").write_text('{"model_type": "llama", "vocab_size": 320}')
    with pytest.raises(UserError, match="a model's own code is never run"):
        load_contexts(tmp_path, SYSTEM, "2026-01-01")


@pytest.mark.parametrize(
    ("config", "generation", "stops"),
    [
        ('{"eos_token_id": 256}', "{}", (258,)),
        ('{"eos_token_id": 256}', '{"eos_token_id": [256, 258]}', ()),
        ('{"text_config": {"eos_token_id": 258}}', "{}", ()),
    ],
)
def test_the_token_that_ends_a_turn_is_added_where_the_model_s_files_do_not_name_it(
    tmp_path: Path, config: str, generation: str, stops: tuple[int, ...]
) -> None:
    """256 is <|endoftext|>, the tokenizer's own end; 258 is <|im_end|>, that of the template."""
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "generation_config.json").write_text(generation)
    contexts = loaded(tmp_path, chat_tokenizer(TEMPLATE, SPECIAL, eos="<|endoftext|>"))
    assert contexts.stop_ids == stops
    assert any("<|im_end|> (token 258)" in note for note in contexts.notes()) == bool(stops)


def test_no_end_is_added_to_turns_of_several_messages(tmp_path: Path) -> None:
    assert loaded(tmp_path, chat_tokenizer(HARMONY, HARMONY_TOKENS, eos="<|call|>")).stop_ids == ()
