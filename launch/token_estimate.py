"""Lengths of contexts without a tokenizer, for `check`, which loads none."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from dynalign.rollout.contexts import Contexts


class _FourCharacters:
    """Stands in for a tokenizer in estimates: English has about four characters a token."""

    eos_token_id = 0
    chat_template: str | Mapping[str, str] | None = None
    added_tokens_decoder: Mapping[int, Any] = MappingProxyType({})

    def __len__(self) -> int:
        return 0

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool,
        tokenize: Literal[False],
        **variables: object,
    ) -> str:
        return "".join(message["content"] for message in conversation)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [0] * (len(text) // 4)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return ""


ESTIMATE = Contexts(_FourCharacters(), system_prompt="", date="", system_role="system")
"""Contexts whose lengths are approximate, since no tokenizer is loaded."""
