"""From a prompt to tokens: the contexts that rollout, learner, evaluation and `check` all use.

    sampling_context(x)   with s, the system prompt that carries the value definition, to sample candidates
    learning_context(x)   exactly what a plain user's call yields, to train the policy
    judge_context(m, a)   the judge's message m as the user's text, and the judge's answer begun with a
    answer(y)             what a reader of completion y sees: no thinking, only the final channel

The distance between the first two is the point of the method: the value moves from the prompt into the
weights.
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
"""The scores that a judge of one token can give."""


@dataclass(frozen=True)
class Contexts:
    """The contexts of one run. All results are token ids of the policy's tokenizer."""

    tokenizer: Tokenizer
    """The policy's tokenizer, with its chat template."""
    system_prompt: str
    """s, the system prompt that carries the value definition."""
    date: str
    """The day (ISO) that templates print: one for the whole run, so that its contexts never change."""
    system_role: str
    """Where the template takes s: "system", "developer", or "user" (before the user's text)."""
    form: AnswerForm = AnswerForm()
    """Where in its own turn the model answers."""

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
        """Token ids of a judge's message and of `prefill`, with which the judge's answer begins.

        A model that thinks before it answers is given an empty thought, so that its next token belongs to
        the answer."""
        opening = self.form.opening + prefill
        opened = self.tokenizer.encode(opening, add_special_tokens=False) if opening else []
        return (*self._encode([{"role": "user", "content": message}]), *opened)

    def digit_ids(self) -> tuple[int, ...]:
        """The token ids of the six digits. Raises UserError if one is not a single token."""
        encoded = [self.tokenizer.encode(digit, add_special_tokens=False) for digit in DIGITS]
        if any(len(ids) != 1 for ids in encoded):
            rule = "its tokenizer splits a digit into several tokens"
            raise UserError([Mistake("model", None, rule, "use judge.scorer=sampled")])
        return tuple(ids[0] for ids in encoded)

    def text(self, token_ids: Sequence[int]) -> str:
        """The whole text, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)

    def answer(self, token_ids: Sequence[int]) -> str:
        """The answer in a completion, as a reader sees it. Empty when the completion ended while thinking."""
        return self.form.answer(token_ids, self.tokenizer)

    def _encode(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        variables = _template_variables(self.date)
        template = self.tokenizer.apply_chat_template
        return tuple(template(messages, add_generation_prompt=True, return_dict=False, **variables))


def load_contexts(model_folder: Path, system_prompt: str, date: str) -> Contexts:
    """The contexts of a model folder. system_prompt: s. date: ISO, see `Contexts`.

    Raises UserError when the tokenizer or the chat template is missing."""
    from transformers import AutoTokenizer

    name = f"model folder {model_folder}"
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        rule = f"has no readable tokenizer ({str(error).splitlines()[0]})"
        raise UserError([Mistake(name, None, rule, "use a folder with tokenizer.json")]) from error
    if not tokenizer.chat_template:
        remedy = "use an instruct model, or add chat_template.jinja"
        raise UserError([Mistake(name, None, "has no chat template", remedy)])
    used = cast(Tokenizer, tokenizer)
    form = answer_form(used, _template_variables(date))
    return Contexts(used, system_prompt, date, _system_role(used, system_prompt), form)


def _template_variables(day: str) -> dict[str, object]:
    """The variables by which templates ask for the day; without them they would print today's."""
    return {"date_string": day, "strftime_now": date.fromisoformat(day or "2000-01-01").strftime}


def _system_role(tokenizer: Tokenizer, system_prompt: str) -> str:
    """The first role under which the template does print the system prompt."""
    from jinja2 import TemplateError

    probe = " ".join(system_prompt.split()[:8])
    variables = _template_variables("2000-01-01")
    for role in ("system", "developer"):
        messages = [{"role": role, "content": probe}, {"role": "user", "content": "x"}]
        template = tokenizer.apply_chat_template
        try:
            ids = template(messages, add_generation_prompt=True, return_dict=False, **variables)
        except TemplateError:
            continue
        if probe in tokenizer.decode(ids, skip_special_tokens=False):
            return role
    return "user"
