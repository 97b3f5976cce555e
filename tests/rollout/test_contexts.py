from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from dynalign.configs.errors import UserError
from dynalign.rollout.contexts import Contexts, load_contexts
from tests.worlds.chat_models import TEMPLATE, chat_tokenizer

SYSTEM = "Grow what all beings together can do."


def contexts(folder: Path, template: str = TEMPLATE) -> Contexts:
    chat_tokenizer(template).save_pretrained(folder)
    return load_contexts(folder, SYSTEM, "2026-01-01")


def shown(made: Contexts, token_ids: tuple[int, ...]) -> str:
    return made.tokenizer.decode(token_ids, skip_special_tokens=False)


def test_the_sampling_context_carries_the_system_prompt_and_the_learning_context_does_not(
    tmp_path: Path,
) -> None:
    made = contexts(tmp_path)
    asked = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert shown(made, made.sampling_context("Hi")) == f"<|im_start|>system\n{SYSTEM}<|im_end|>\n{asked}"
    assert shown(made, made.learning_context("Hi")) == f"<|im_start|>system\nYou help.<|im_end|>\n{asked}"


def test_the_learning_context_is_what_a_plain_call_of_the_chat_template_yields(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    plain = chat_tokenizer().apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, return_dict=False
    )
    assert list(made.learning_context("Hi")) == plain


def test_a_template_without_system_role_takes_the_system_prompt_before_the_users_text(tmp_path: Path) -> None:
    refusing = (
        "{% for m in messages %}{% if m['role'] != 'user' %}{{ raise_exception('only users') }}{% endif %}"
        "[{{ m['content'] }}]{% endfor %}"
    )
    made = contexts(tmp_path, refusing)
    assert made.system_role == "user"
    assert shown(made, made.sampling_context("Hi")) == f"[{SYSTEM}\n\nHi]"


def test_a_template_that_swallows_the_system_message_takes_it_as_developer(tmp_path: Path) -> None:
    swallowing = (
        "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'] }}:{{ m['content'] }};"
        "{% endif %}{% endfor %}"
    )
    made = contexts(tmp_path, swallowing)
    assert shown(made, made.sampling_context("Hi")) == f"developer:{SYSTEM};user:Hi;"


def test_the_date_a_template_prints_is_the_runs_date(tmp_path: Path) -> None:
    dated = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}|{{ m['content'] }}{% endfor %}"
    made = contexts(tmp_path, dated)
    assert shown(made, made.learning_context("Hi")) == "01 Jan 2026|Hi"


def test_the_judges_turn_is_opened_by_its_prefill(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    assert shown(made, made.judge_context("Score it", "Grade: ")).endswith(
        "Score it<|im_end|>\n<|im_start|>assistant\nGrade: "
    )


def test_the_six_digits_are_six_tokens(tmp_path: Path) -> None:
    made = contexts(tmp_path)
    shown_6 = [shown(made, (digit,)) for digit in made.digit_ids()]
    assert shown_6 == list("012345")


def sentencepiece(digits_merged: bool) -> PreTrainedTokenizerFast:
    """Like Llama 2's: a text begins with `▁`. digits_merged: `▁5` is a token, as in GPT-2's."""
    bytes_256 = [f"<0x{byte:02X}>" for byte in range(256)]
    merged = [f"▁{digit}" for digit in range(10)] if digits_merged else []
    names = ["<unk>", "<s>", "</s>", *bytes_256, *map(chr, range(33, 127)), "▁", *merged]
    vocabulary = {name: token for token, name in enumerate(dict.fromkeys(names))}
    merges = [("▁", each[1]) for each in merged]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
    return fast


def test_the_digits_are_what_each_adds_to_the_judge_s_prefill(tmp_path: Path) -> None:
    tokenizer = sentencepiece(digits_merged=False)
    tokenizer.save_pretrained(tmp_path)
    made = load_contexts(tmp_path, SYSTEM, "2026-01-01")
    assert tokenizer.convert_ids_to_tokens(list(made.digit_ids())) == list("012345")
    asked = made.judge_context("Score it", "Grade: ")
    for digit, token in zip("012345", made.digit_ids(), strict=True):
        assert made.judge_context("Score it", f"Grade: {digit}") == (*asked, token)


def test_digits_that_merge_with_the_prefill_are_refused(tmp_path: Path) -> None:
    sentencepiece(digits_merged=True).save_pretrained(tmp_path)
    made = load_contexts(tmp_path, SYSTEM, "2026-01-01")
    with pytest.raises(UserError, match="does not encode each digit after 'Grade: ' as one token"):
        made.digit_ids()


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tokenizer"):
        load_contexts(tmp_path, SYSTEM, "2026-01-01")


def test_a_tokenizer_without_chat_template_is_refused(tmp_path: Path) -> None:
    chat_tokenizer(None).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="chat template"):
        load_contexts(tmp_path, SYSTEM, "2026-01-01")
