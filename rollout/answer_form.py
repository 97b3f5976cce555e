"""Where the answer is in a model's turn: after its thinking, in its final channel, or the whole turn.

It is read from the chat template, never from the model's name. What the template writes between its
generation prompt and the text of an assistant's message is how this model opens an answer:

    nothing                                the whole turn is the answer
    <think>\\n\\n</think>\\n\\n                the answer is what follows the closing tag
    <|channel|>final<|message|>            the answer is what follows, up to the next control token
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dynalign.rollout.chat_template import ANSWER, QUESTION, rendered, template_errors
from dynalign.rollout.control_tokens import Tokenizer, template_source

_EMPTY_THINKING = re.compile(
    r"(<(?!\|)(?P<tag>[^<>/\s]+)>\s*(?P<close></(?P=tag)>)|\[(?P<word>\w+)\]\s*(?P<end>\[/(?P=word)\]))\s*$"
)
_THOUGHT = re.compile(r"think|thought|reason", re.IGNORECASE)
_CLOSING_TAG = re.compile(
    rf"(?P<left><|\[|◁)/(?P<name>[\w:.-]*(?:{_THOUGHT.pattern})[\w:.-]*)(?P<right>>|\]|▷)"
    r"|<\|END_(?P<stage>THINKING)\|>",
    re.IGNORECASE,
)
_OPENED_THINKING = re.compile(r"(<(?!\|)(?P<tag>[^<>/\s]+)>|\[(?P<word>[A-Z]+)\])\s*$")


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
        tags = self.tags(tokenizer)
        if tags is not None:
            turn = tokenizer.decode(token_ids, skip_special_tokens=False)
            return self._after_thinking(turn, tags, tokenizer)
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

    def tags(self, tokenizer: Tokenizer) -> tuple[str, str] | None:
        """The tags between which thinking is taken off; None where none is.

        Without a word of thinking in the template these are the tokenizer's own tokens for it."""
        if self.thinking is not None or self.opening:
            return self.thinking
        return thinking_tags(added.content for added in tokenizer.added_tokens_decoder.values())

    def _after_thinking(self, turn: str, tags: tuple[str, str], tokenizer: Tokenizer) -> str:
        opens, closes = tags
        _, closed, answer = turn.partition(closes)
        if not closed:
            answer = "" if self.begun or turn.lstrip().startswith(opens) else turn
        for added in tokenizer.added_tokens_decoder.values():
            if added.special:
                answer = answer.replace(added.content, "")
        return answer.lstrip("\n")


def answer_form(tokenizer: Tokenizer, day: str) -> AnswerForm:
    """Reads the form from the chat template, on a day (ISO). Raises `template_errors()` for a template that
    takes no question."""
    named = thinking_tags([template_source(tokenizer)])
    plain = AnswerForm() if named is None else AnswerForm(f"{named[0]}\n\n{named[1]}\n\n", named)
    question = {"role": "user", "content": QUESTION}
    probe = {"role": "assistant", "content": ANSWER}
    asked = rendered(tokenizer, [question], day)
    try:
        closed = rendered(tokenizer, [question, probe], day, add_generation_prompt=False)
    except template_errors():
        return plain  # the template takes one question and no answer
    before, found, _ = closed.partition(ANSWER)
    if asked == rendered(tokenizer, [question], day, add_generation_prompt=False):
        return plain  # it does not say where the assistant's turn begins
    begun = _OPENED_THINKING.search(asked)
    opening = before.removeprefix(asked) if found and before.startswith(asked) else None
    if begun and (opening is None or (not opening and _THOUGHT.search(begun[0]))):
        opening = "\n" + _closing(begun) + "\n\n"  # it drops earlier thoughts, or leaves them to the message
    if opening is None:
        return plain
    empty = _EMPTY_THINKING.search(asked + opening)
    if empty:
        closes = empty["close"] or empty["end"]
        opens = f"<{empty['tag']}>" if empty["tag"] else f"[{empty['word']}]"
        return AnswerForm(opening, (opens, closes), begun=empty.start() < len(asked))
    special = {added.content for added in tokenizer.added_tokens_decoder.values() if added.special}
    return AnswerForm(opening) if any(token in opening for token in special) else plain


def thinking_tags(texts: Iterable[str]) -> tuple[str, str] | None:
    """The tags around thinking, from the first closing one in the texts: `</think>`, `[/THINK]`,
    `</seed:think>`, `◁/think▷`, `<|END_THINKING|>`. None if there is none."""
    for text in texts:
        if found := _CLOSING_TAG.search(text):
            if found["stage"]:
                return f"<|START_{found['stage']}|>", found[0]
            return f"{found['left']}{found['name']}{found['right']}", found[0]
    return None


def _closing(opened: re.Match[str]) -> str:
    return f"</{opened['tag']}>" if opened["tag"] else f"[/{opened['word']}]"
