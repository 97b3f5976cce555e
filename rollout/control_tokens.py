"""Texts are data: no text that somebody wrote becomes a control token of the tokenizer.

A control token opens or closes a turn, a channel or a thought. A tokenizer makes one wherever a text spells
it, so that a candidate could end its own turn in the judge's context, and begin the judge's answer. The
rule here is one of ids: a context has the control tokens of its chat template and no others, whatever the
texts in it are and however the tokenizer normalizes them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

_STRANGE = "☃\U0001f9ff\U0010fffd"  # characters of which a small vocabulary knows none


class AddedToken(Protocol):
    """One token that a tokenizer never splits."""

    content: str
    """Its text."""
    special: bool
    """Whether decoding without special tokens leaves it out."""


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used."""

    eos_token_id: int
    chat_template: str | Mapping[str, str] | None

    @property
    def added_tokens_decoder(self) -> Mapping[int, AddedToken]: ...

    def __len__(self) -> int: ...

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool,
        tokenize: Literal[False],
        **variables: object,
    ) -> str: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...


def template_source(tokenizer: Tokenizer) -> str:
    """The source of the chat template that is used; empty without one."""
    template = tokenizer.chat_template or ""
    return template if isinstance(template, str) else template.get("default", "")


class Split(NamedTuple):
    """A sequence of token ids, cut at its control tokens: Split((1, 2), ((), (57, 9), (10,)))."""

    controls: tuple[int, ...]
    """The control tokens, in order."""
    between: tuple[tuple[int, ...], ...]
    """What stands before the first, between each two, and after the last one."""


class ChatFrame(NamedTuple):
    """What a chat template writes around texts: ChatFrame("<|im_start|>user\\n…", (1, 2), {2: (10,)})."""

    text: str
    """The whole, with probes as texts."""
    controls: tuple[int, ...]
    """Its control tokens."""
    fixed: Mapping[int, tuple[int, ...]]
    """Place between control tokens → the token ids there, where no text stands."""

    def holds(self, made: Split) -> bool:
        """Whether a sequence is this frame around other texts.

        Its control tokens alone do not tell: a text that ends with `[e~` makes one with the first character
        of the `[e~[` behind it, and leaves the rest of that one as text."""
        return made.controls == self.controls and all(
            made.between[place] == ids for place, ids in self.fixed.items()
        )


@dataclass(frozen=True)
class ControlTokens:
    """The control tokens of one tokenizer, and how texts are encoded without them.

    These are its special tokens, the added ones that its chat template writes (some families mark
    `<｜User｜>` as not special), and those that the model has no embedding for. The token that stands for
    unknown characters is none, if a text without control tokens can contain it.
    """

    tokenizer: Tokenizer
    """The policy's tokenizer."""
    vocabulary: int | None = None
    """Rows of the model's embedding; None where they are unknown."""

    @cached_property
    def texts(self) -> Mapping[int, str]:
        """Token id → the text that spells it."""
        source = template_source(self.tokenizer)
        unknown = set(self._ids(_STRANGE))
        return {
            token: added.content
            for token, added in self.tokenizer.added_tokens_decoder.items()
            if added.content and token not in unknown
            if added.special or _writes(source, added.content) or self.has_no_row(token)
        }

    def has_no_row(self, token: int) -> bool:
        """Whether a token id lies beyond the embedding, so that an engine dies of it."""
        return self.vocabulary is not None and token >= self.vocabulary

    def among(self, token_ids: Sequence[int]) -> list[int]:
        """The control tokens of a sequence, in their order."""
        return [token for token in token_ids if token in self.texts]

    def split(self, token_ids: Sequence[int]) -> Split:
        """A sequence as its control tokens and what stands between them."""
        controls: list[int] = []
        between: list[list[int]] = [[]]
        for token in token_ids:
            if token in self.texts:
                controls.append(token)
                between.append([])
            else:
                between[-1].append(token)
        return Split(tuple(controls), tuple(map(tuple, between)))

    def apart(self, text: str) -> str:
        """The text with a space after the first character of each control token that it spells.

        It reads the same, and a control token of one character stays."""
        spelled = [content for content in self.texts.values() if len(content) > 1 and content in text]
        if not spelled:
            return text
        alternatives = "|".join(map(re.escape, spelled))
        return re.sub(f"(?=(?:{alternatives}))(.)", r"\1 ", text, flags=re.DOTALL)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without control tokens.

        Where a normalizer brings back what `apart` has broken, the text is encoded character by
        character, and a character that is a control token by itself is left out."""
        ids = self._ids(self.apart(text))
        if self.among(ids):
            ids = [token for character in text for token in self._ids(character) if token not in self.texts]
        return ids

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)


def _writes(source: str, content: str) -> bool:
    """Whether a template writes this token: one that is no word, since `user` is in every template."""
    return content in source and not content.isspace() and not content.isalnum()
