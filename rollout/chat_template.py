"""A model's chat template: what it makes of messages, and the probes that it must pass before a run.

A template that leaves out the user's text trains on nothing, and no number shows it. So each role is probed
with a text that no template contains, before anything is started.
"""

from collections.abc import Mapping, Sequence
from datetime import date

from dynalign.configs.errors import Mistake, UserError
from dynalign.rollout.control_tokens import Tokenizer

QUESTION = "Kuvrath asks"
"""A user's text that no template contains."""
INSTRUCTION = "Tolmeng advises"
"""A system text that no template contains."""
ANSWER = "Zirpond says"
"""An assistant's text that no template contains."""

_SHORT_WORDS = 3
"""A system prompt of so few words can stand in a template by chance."""

Messages = Sequence[Mapping[str, str]]
"""Role and content of each message."""


def template_errors() -> tuple[type[Exception], ...]:
    """What rendering raises for a template that is no Jinja, refuses messages, or computes wrongly."""
    from jinja2 import TemplateError

    computed = (TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
    return (TemplateError, ValueError, *computed)


def rendered(tokenizer: Tokenizer, messages: Messages, day: str, add_generation_prompt: bool = True) -> str:
    """The text that the template makes of messages on a day (ISO). Raises `template_errors()`.

    `strftime_now` alone carries the day: a plain call passes nothing else, and templates print other texts
    where `date_string` is given."""
    now = date.fromisoformat(day or "2000-01-01").strftime
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=add_generation_prompt, tokenize=False, strftime_now=now
    )


def refusal(place: str, error: Exception) -> UserError:
    """The refusal of a template that raised `error` for a user's message."""
    cause = (str(error).strip() or type(error).__name__).splitlines()[0]
    rule = f"its chat template takes no user message ({cause})"
    return UserError([Mistake(place, None, rule, "mend chat_template.jinja, or use an instruct model")])


def system_role(tokenizer: Tokenizer, day: str) -> str:
    """Where a template takes the system prompt: "system", "developer", or "user" (before the user's text)."""
    user = {"role": "user", "content": QUESTION}
    for role in ("system", "developer"):
        try:
            text = rendered(tokenizer, [{"role": role, "content": INSTRUCTION}, user], day)
        except template_errors():
            continue
        if INSTRUCTION in text:
            return role
    return "user"


def probe_mistakes(place: str, sampling: str, learning: str, system_prompt: str) -> list[Mistake]:
    """What is wrong with the two contexts that a template has made of `QUESTION`, as texts.

    The user's text belongs into both, the system prompt into the first alone. White space may differ.
    """
    mistakes = []
    remedy = "use a template that prints the content of a message as plain text"
    system_words = " ".join(system_prompt.split())
    for name, text in (("sampling", sampling), ("learning", learning)):
        if QUESTION not in text:
            rule = f"its chat template leaves the user's text out of the {name} context"
            mistakes.append(Mistake(place, None, rule, remedy))
    if system_words not in " ".join(sampling.split()):
        rule = "its chat template leaves out or changes the system prompt"
        mistakes.append(Mistake(place, None, rule, remedy))
    if system_words.count(" ") >= _SHORT_WORDS and system_words in " ".join(learning.split()):
        rule = "its chat template holds the system prompt itself, so that the learning context has it too"
        mistakes.append(Mistake(place, None, rule, "take it out of the template"))
    return mistakes


def after_an_answer(tokenizer: Tokenizer, day: str) -> str:
    """What the template writes after an assistant's text; empty for one that takes no such message."""
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    try:
        return rendered(tokenizer, turns, day, add_generation_prompt=False).rpartition(ANSWER)[2]
    except template_errors():
        return ""
