"""Where the answer is in a model's turn: after its thinking, in its final channel, or the whole turn.

It is read from the chat template, never from the model's name. What the template writes between its
generation prompt and the text of an assistant's message is how this model opens an answer:

    nothing                                the whole turn is the answer
    <think>\\n\\n</think>\\n\\n                the answer is what follows the closing tag
    <|channel|>final<|message|>            the answer is what follows, up to the next control token
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

_PROBE = "Kuvrath"  # a text that no template contains
_EMPTY_THINKING = re.compile(
    r"(<(?!\|)(?P<tag>[^<>/\s]+)>\s*(?P<close></(?P=tag)>)|\[(?P<word>\w+)\]\s*(?P<end>\[/(?P=word)\]))\s*$"
)
_OPENED_THINKING = re.compile(r"(<(?!\|)(?P<tag>[^<>/\s]+)>|\[(?P<word>[A-Z]+)\])\s*$")


class AddedToken(Protocol):
    """One token that a tokenizer never splits."""

    content: str
    """Its text."""
    special: bool
    """Whether decoding without special tokens leaves it out."""


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used."""

    eos_token_id: int

    @property
    def added_tokens_decoder(self) -> Mapping[int, AddedToken]: ...

    def __len__(self) -> int: ...

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool,
        return_dict: bool,
        **variables: object,
    ) -> list[int]: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...


@dataclass(frozen=True)
class AnswerForm:
    """How a model's turn is built.

    Example, Qwen3:

        AnswerForm(opening="<think>\\n\\n</think>\\n\\n", thinking=("<think>", "</think>"))
    """

    opening: str = ""
    """What a turn without thinking begins with, after the generation prompt."""
    thinking: tuple[str, str] | None = None
    """The tags around the thinking, for models that write it between tags."""
    begun: bool = False
    """Whether the generation prompt itself has opened the thinking."""

    def answer(self, token_ids: Sequence[int], tokenizer: Tokenizer) -> str:
        """The answer in a turn as a reader sees it, without special tokens.

        Empty when the turn ended before its answer began."""
        if self.thinking is not None:
            return self._after_thinking(tokenizer.decode(token_ids, skip_special_tokens=False), tokenizer)
        special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        if not self.opening:
            return tokenizer.decode(token_ids, skip_special_tokens=True)
        opening = tokenizer.encode(self.opening, add_special_tokens=False)
        ids = list(token_ids)
        length = len(opening)
        begins = [start + length for start in range(len(ids)) if ids[start : start + length] == opening]
        if not begins:
            return ""
        tail = ids[begins[-1] :]
        ends = next((index for index, token in enumerate(tail) if token in special), len(tail))
        return tokenizer.decode(tail[:ends], skip_special_tokens=True)

    def _after_thinking(self, turn: str, tokenizer: Tokenizer) -> str:
        opens, closes = cast(tuple[str, str], self.thinking)
        _, closed, answer = turn.partition(closes)
        if not closed:
            answer = "" if self.begun or turn.lstrip().startswith(opens) else turn
        for added in tokenizer.added_tokens_decoder.values():
            if added.special:
                answer = answer.replace(added.content, "")
        return answer.lstrip("\n")


def answer_form(tokenizer: Tokenizer, variables: Mapping[str, object]) -> AnswerForm:
    """Reads the form from the chat template. variables: what the template may ask for, such as the date."""
    from jinja2 import TemplateError

    def shown(messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, return_dict=False, **variables
        )
        return tokenizer.decode(ids, skip_special_tokens=False)

    question = {"role": "user", "content": "x"}
    probe = {"role": "assistant", "content": _PROBE}
    asked = shown([question], add_generation_prompt=True)
    try:
        before, found, _ = shown([question, probe], add_generation_prompt=False).partition(_PROBE)
    except TemplateError:
        return AnswerForm()  # the template takes one question and no answer
    if asked == shown([question], add_generation_prompt=False):
        return AnswerForm()  # it does not say where the assistant's turn begins
    begun = _OPENED_THINKING.search(asked)
    if found and before.startswith(asked):
        opening = before.removeprefix(asked)
    elif begun:  # the template drops the thinking of earlier turns
        opening = "\n" + _closing(begun) + "\n\n"
    else:
        return AnswerForm()
    empty = _EMPTY_THINKING.search(asked + opening)
    if empty:
        closes = empty["close"] or empty["end"]
        opens = f"<{empty['tag']}>" if empty["tag"] else f"[{empty['word']}]"
        return AnswerForm(opening, (opens, closes), begun=empty.start() < len(asked))
    special = {added.content for added in tokenizer.added_tokens_decoder.values() if added.special}
    return AnswerForm(opening if any(token in opening for token in special) else "")


def _closing(opened: re.Match[str]) -> str:
    return f"</{opened['tag']}>" if opened["tag"] else f"[/{opened['word']}]"
