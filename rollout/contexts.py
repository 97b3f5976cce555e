"""The two contexts: the only way from a prompt to tokens, used by rollout, learner, evaluation and `check` alike.

    sampling_context(x)   carries s, the system prompt with the value definition: what candidates are sampled from
    learning_context(x)   exactly what a plain user's call yields: what the policy is trained in
    judge_context(m, a)   a plain call as well, with the judge's message as the user's text and the answer begun with a

The distance between the first two is the point of the method: the value moves from the prompt into the weights.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from configs.errors import Mistake, UserError

DIGITS = ("0", "1", "2", "3", "4", "5")


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used."""

    eos_token_id: int

    def __len__(self) -> int: ...

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, str]], *, add_generation_prompt: bool, return_dict: bool, date_string: str
    ) -> list[int]: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...


@dataclass(frozen=True)
class Contexts:
    """The contexts of one run. `date` (ISO) is what templates that print a date see, so that a run's contexts never drift.

    system_role: where the template takes s: "system", "developer", or "user" (before the user's text).
    """

    tokenizer: Tokenizer
    system_prompt: str
    date: str
    system_role: str

    def sampling_context(self, prompt: str) -> tuple[int, ...]:
        """Token ids of (s, x), ready for the first completion token."""
        if self.system_role == "user":
            return self._encode([{"role": "user", "content": f"{self.system_prompt}\n\n{prompt}"}])
        return self._encode([{"role": self.system_role, "content": self.system_prompt}, {"role": "user", "content": prompt}])

    def learning_context(self, prompt: str) -> tuple[int, ...]:
        """Token ids of x alone, a template's own default system text included."""
        return self._encode([{"role": "user", "content": prompt}])

    def judge_context(self, message: str, prefill: str) -> tuple[int, ...]:
        """Token ids of a judge's message, with the judge's own turn opened by `prefill`."""
        opened = self.tokenizer.encode(prefill, add_special_tokens=False) if prefill else []
        return (*self._encode([{"role": "user", "content": message}]), *opened)

    def digit_ids(self) -> tuple[int, ...]:
        """The token ids of the six digits. Raises UserError if one is not a single token."""
        encoded = [self.tokenizer.encode(digit, add_special_tokens=False) for digit in DIGITS]
        if any(len(ids) != 1 for ids in encoded):
            raise UserError([Mistake("model", None, "its tokenizer splits a digit into several tokens", "use judge.scorer=sampled")])
        return tuple(ids[0] for ids in encoded)

    def text(self, token_ids: Sequence[int]) -> str:
        """The answer as a reader sees it, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)

    def _encode(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        return tuple(
            self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, date_string=self.date)
        )


def load_contexts(model_folder: Path, system_prompt: str, date: str) -> Contexts:
    """Loads the folder's tokenizer. Raises UserError when tokenizer or chat template are missing or take no user message."""
    from transformers import AutoTokenizer

    place = f"model folder {model_folder}"
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        cause = str(error).splitlines()[0]
        raise UserError([Mistake(place, None, f"has no readable tokenizer ({cause})", "use a folder with tokenizer.json")]) from error
    if not tokenizer.chat_template:
        raise UserError([Mistake(place, None, "has no chat template", "use an instruct model, or add chat_template.jinja")])
    used = cast(Tokenizer, tokenizer)
    return Contexts(used, system_prompt, date, _system_role(used, system_prompt))


def _system_role(tokenizer: Tokenizer, system_prompt: str) -> str:
    """The first role under which the template really prints the system prompt."""
    from jinja2 import TemplateError

    probe = " ".join(system_prompt.split()[:8])
    for role in ("system", "developer"):
        messages = [{"role": role, "content": probe}, {"role": "user", "content": "x"}]
        try:
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, date_string="2000-01-01")
        except TemplateError:
            continue
        if probe in tokenizer.decode(ids, skip_special_tokens=False):
            return role
    return "user"
