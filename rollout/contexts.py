"""The two contexts: the only way from a prompt to tokens, used by rollout, learner, evaluation and `check` alike.

    sampling_context(x)   carries s, the system prompt with the value definition: what candidates are sampled from
    learning_context(x)   exactly what a plain user's call yields: what the policy is trained in
    judge_context(m, a)   a plain call as well, with the judge's message as the user's text and the answer begun with a
    answer(y)             what a reader of completion y sees: not the thinking, only the final channel

The distance between the first two is the point of the method: the value moves from the prompt into the weights.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import cast

from dynalign.configs.errors import Mistake, UserError
from dynalign.rollout.answer_form import AnswerForm, Tokenizer, answer_form

DIGITS = ("0", "1", "2", "3", "4", "5")


@dataclass(frozen=True)
class Contexts:
    """The contexts of one run. `date` (ISO) is what templates that print a date see, so that a run's contexts never drift.

    system_role: where the template takes s: "system", "developer", or "user" (before the user's text). form: where in its own turn
    the model answers.
    """

    tokenizer: Tokenizer
    system_prompt: str
    date: str
    system_role: str
    form: AnswerForm = AnswerForm()

    def sampling_context(self, prompt: str) -> tuple[int, ...]:
        """Token ids of (s, x), ready for the first completion token."""
        if self.system_role == "user":
            return self._encode([{"role": "user", "content": f"{self.system_prompt}\n\n{prompt}"}])
        return self._encode(
            [{"role": self.system_role, "content": self.system_prompt}, {"role": "user", "content": prompt}]
        )

    def learning_context(self, prompt: str) -> tuple[int, ...]:
        """Token ids of x alone, a template's own default system text included."""
        return self._encode([{"role": "user", "content": prompt}])

    def judge_context(self, message: str, prefill: str) -> tuple[int, ...]:
        """Token ids of a judge's message, with the judge's own answer opened by `prefill`: its thinking, if it has any, is over."""
        opened = (
            self.tokenizer.encode(self.form.opening + prefill, add_special_tokens=False)
            if self.form.opening + prefill
            else []
        )
        return (*self._encode([{"role": "user", "content": message}]), *opened)

    def digit_ids(self) -> tuple[int, ...]:
        """The token ids of the six digits. Raises UserError if one is not a single token."""
        encoded = [self.tokenizer.encode(digit, add_special_tokens=False) for digit in DIGITS]
        if any(len(ids) != 1 for ids in encoded):
            raise UserError(
                [
                    Mistake(
                        "model",
                        None,
                        "its tokenizer splits a digit into several tokens",
                        "use judge.scorer=sampled",
                    )
                ]
            )
        return tuple(ids[0] for ids in encoded)

    def text(self, token_ids: Sequence[int]) -> str:
        """All of the text, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)

    def answer(self, token_ids: Sequence[int]) -> str:
        """The answer in a completion, as a reader sees it. Empty when the completion ended in thought."""
        return self.form.answer(token_ids, self.tokenizer)

    def _encode(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        variables = _template_variables(self.date)
        return tuple(
            self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False, **variables
            )
        )


def load_contexts(model_folder: Path, system_prompt: str, date: str) -> Contexts:
    """Loads the folder's tokenizer. Raises UserError when tokenizer or chat template are missing or take no user message."""
    from transformers import AutoTokenizer

    place = f"model folder {model_folder}"
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        cause = str(error).splitlines()[0]
        raise UserError(
            [Mistake(place, None, f"has no readable tokenizer ({cause})", "use a folder with tokenizer.json")]
        ) from error
    if not tokenizer.chat_template:
        raise UserError(
            [
                Mistake(
                    place, None, "has no chat template", "use an instruct model, or add chat_template.jinja"
                )
            ]
        )
    used = cast(Tokenizer, tokenizer)
    return Contexts(
        used,
        system_prompt,
        date,
        _system_role(used, system_prompt),
        answer_form(used, _template_variables(date)),
    )


def _template_variables(day: str) -> dict[str, object]:
    """What templates ask for the day by; without it they would print today's."""
    return {"date_string": day, "strftime_now": date.fromisoformat(day or "2000-01-01").strftime}


def _system_role(tokenizer: Tokenizer, system_prompt: str) -> str:
    """The first role under which the template really prints the system prompt."""
    from jinja2 import TemplateError

    probe = " ".join(system_prompt.split()[:8])
    for role in ("system", "developer"):
        messages = [{"role": role, "content": probe}, {"role": "user", "content": "x"}]
        try:
            variables = _template_variables("2000-01-01")
            ids = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False, **variables
            )
        except TemplateError:
            continue
        if probe in tokenizer.decode(ids, skip_special_tokens=False):
            return role
    return "user"
