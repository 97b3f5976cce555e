"""From a prompt to tokens: the contexts that rollout, learner, evaluation and `check` all use.

    sampling_context(x)   with s, the system prompt that carries the value definition, to sample candidates
    learning_context(x)   exactly what a plain user's call yields, to train the policy
    judge_context(m, a)   the judge's message m as the user's text, and the judge's answer begun with a
    chat_context(m, …)    any other chat: a question to an engine with fixed weights
    answer(y)             what a reader of completion y sees: no thinking, only the final channel

The distance between the first two is the point of the method: the value moves from the prompt into the
weights.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from dynalign.configs.errors import Mistake, UserError
from dynalign.endpoint.base import Message
from dynalign.rollout import chat_template
from dynalign.rollout.answer_form import AnswerForm, answer_form
from dynalign.rollout.chat_template import ANSWER, INSTRUCTION, QUESTION, Messages
from dynalign.rollout.control_tokens import ChatFrame, ControlTokens, Tokenizer
from dynalign.rollout.judges.value_texts import JUDGE_PREFILLS

DIGITS = ("0", "1", "2", "3", "4", "5")
"""The grades of a judge of one token, on the scale of the shipped texts."""


@dataclass(frozen=True)
class Contexts:
    """The contexts of one run. All results are token ids of the policy's tokenizer.

    Texts are data: of the control tokens, a context holds those that the chat template writes, whatever its
    texts spell."""

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
    stop_ids: tuple[int, ...] = ()
    """Token ids that end a turn by the template, if the model's files name none of them as its end."""
    vocabulary: int | None = None
    """Rows of the model's embedding; None where they are unknown."""

    @cached_property
    def controls(self) -> ControlTokens:
        """The control tokens, which only the template may write."""
        return ControlTokens(self.tokenizer, self.vocabulary)

    @cached_property
    def _frames(self) -> dict[tuple[str, ...], ChatFrame]:
        """Roles → what the template writes around their texts."""
        return {}

    def sampling_context(self, prompt: str) -> tuple[int, ...]:
        """Token ids of (s, x), ready for the first completion token."""
        return self._encode(self._sampling_messages(prompt))

    def _sampling_messages(self, prompt: str) -> Messages:
        return self._as_taken([Message("system", self.system_prompt), Message("user", prompt)])

    def _as_taken(self, messages: Sequence[Message]) -> Messages:
        """The messages in roles that the template takes; a system text without one goes before the user's."""
        taken: list[dict[str, str]] = []
        before = ""
        for message in messages:
            system = message.role == "system"
            if system and self.system_role == "user":
                before += f"{message.content}\n\n"
                continue
            role = self.system_role if system else message.role
            taken.append({"role": role, "content": before + message.content})
            before = ""
        return taken

    def probes(self) -> tuple[str, str]:
        """The texts of the sampling and of the learning context of `QUESTION`."""
        learning = self._rendered([{"role": "user", "content": QUESTION}])
        return self._rendered(self._sampling_messages(QUESTION)), learning

    def learning_context(self, prompt: str) -> tuple[int, ...]:
        """Token ids of x alone, a template's own default system text included."""
        return self._encode([{"role": "user", "content": prompt}])

    def judge_context(self, message: str, prefill: str) -> tuple[int, ...]:
        """Token ids of a judge's message and of `prefill`, with which the judge's answer begins.

        A model that thinks before it answers is given an empty thought, so that its next token belongs to
        the answer."""
        return self.chat_context([Message("user", message)], prefill)

    def chat_context(self, messages: Sequence[Message], prefill: str | None) -> tuple[int, ...]:
        """Token ids of a chat, ready for the assistant's next message.

        prefill: with which its answer begins, after an empty thought; None: the model begins by itself."""
        asked = self._encode(self._as_taken(messages))
        return asked if prefill is None else (*asked, *self._opened(prefill))

    def _opened(self, prefill: str) -> list[int]:
        """Token ids of an answer that begins with a text, of whose spellings none becomes a control token."""
        opening = self.encoded(self.form.opening) if self.form.opening else []
        if not prefill:
            return opening
        ids = self.encoded(self.form.opening + prefill)
        if self.controls.among(ids) != self.controls.among(opening):
            return opening + self.controls.encode(prefill)
        return ids

    def digit_ids(
        self, prefill: str = JUDGE_PREFILLS["expected"], digits: Sequence[str] = DIGITS
    ) -> tuple[int, ...]:
        """The token ids of the digits, as they follow `prefill` in the judge's answer.

        Raises UserError unless each digit adds one token of its own to the tokens of `prefill`."""
        ids = self.choice_ids(digits, prefill)
        if ids is None:
            rule = f"its tokenizer does not encode each digit after {prefill!r} as one token of its own"
            raise UserError([Mistake("model", None, rule, "use judge.scorer=sampled")])
        return ids

    def choice_ids(self, choices: Sequence[str], prefill: str) -> tuple[int, ...] | None:
        """The token ids of choices, as they follow `prefill` in an answer.

        None unless each adds one token of its own to the tokens of `prefill`, and no control token."""
        before = self._opened(prefill)
        added = [self.encoded(self.form.opening + prefill + choice) for choice in choices]
        tokens = tuple(ids[-1] for ids in added if ids[:-1] == before and len(ids) > len(before))
        if len(set(tokens)) < len(choices) or self.controls.among(tokens):
            return None
        return tokens

    def text(self, token_ids: Sequence[int]) -> str:
        """The whole text, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)

    def answer(self, token_ids: Sequence[int]) -> str:
        """The answer in a completion, as a reader sees it. Empty when the completion ended while thinking."""
        return self.form.answer(token_ids, self.tokenizer)

    def notes(self) -> Iterator[str]:
        """What was read off the chat template, a line each: where the answer is, and what ends a turn."""
        tags = self.form.tags(self.tokenizer)
        if tags is not None:
            yield f"--- answer: what follows {tags[1]}; thinking is taken off ---"
        elif self.form.opening:
            yield f"--- answer: what follows {self.form.opening!r}; other channels are taken off ---"
        else:
            source = "neither the chat template nor the tokenizer has a tag for it"
            yield f"--- answer: the whole turn; no thinking is taken off ({source}) ---"
        for token in self.stop_ids:
            text = self.controls.texts[token]
            yield f"--- end of a turn: {text} (token {token}), which the model's files do not name: added ---"

    def _encode(self, messages: Messages) -> tuple[int, ...]:
        """Token ids of messages, with no control token from their texts.

        Unless the texts spell one, these are the ids of a plain call. Otherwise the spelling is broken. If
        a control token comes out even so, or one of the template's is cut by what stands beside it,
        template and texts are encoded apart and joined."""
        frame = self._frame(tuple(message["role"] for message in messages))
        broken = [{**message, "content": self.controls.apart(message["content"])} for message in messages]
        for attempt in (messages, broken):
            ids = self.encoded(self._rendered(attempt))
            if frame.holds(self.controls.split(ids)):
                return tuple(ids)
        probes = _probes([message["role"] for message in messages])
        texts = {probe: message["content"] for probe, message in zip(probes, messages, strict=True)}
        pieces = re.split(f"({'|'.join(texts)})", frame.text)
        joined = (
            self.controls.encode(texts[piece]) if piece in texts else self.encoded(piece) for piece in pieces
        )
        return tuple(token for ids in joined for token in ids)

    def _frame(self, roles: tuple[str, ...]) -> ChatFrame:
        """What the template writes around the texts of these roles."""
        if roles not in self._frames:
            text = self._probed(roles, 0)
            controls, between = self.controls.split(self.encoded(text))
            others = self.controls.split(self.encoded(self._probed(roles, len(roles)))).between
            places = enumerate(zip(between, others, strict=True))
            fixed = {place: ids for place, (ids, other) in places if ids == other}
            self._frames[roles] = ChatFrame(text, controls, fixed)
        return self._frames[roles]

    def _probed(self, roles: Sequence[str], first: int) -> str:
        """The text of a chat of these roles, with probes as texts."""
        probes = zip(roles, _probes(roles, first), strict=True)
        return self._rendered([{"role": role, "content": probe} for role, probe in probes])

    def _rendered(self, messages: Messages) -> str:
        try:
            return chat_template.rendered(self.tokenizer, messages, self.date)
        except chat_template.template_errors() as error:
            raise chat_template.refusal("model", error) from error

    def encoded(self, text: str) -> list[int]:
        """Token ids of a text that may hold control tokens: of one that the template wrote."""
        return self.tokenizer.encode(text, add_special_tokens=False)


def _probes(roles: Sequence[str], first: int = 0) -> list[str]:
    """A text for each message that no template contains, and that is part of no other. first: a number."""
    texts = {"user": QUESTION, "assistant": ANSWER}
    return [f"{texts.get(role, INSTRUCTION)} {index:04}" for index, role in enumerate(roles, first)]


def load_contexts(model_folder: Path, system_prompt: str, date: str) -> Contexts:
    """The contexts of a model folder. system_prompt: s. date: ISO, see `Contexts`.

    Raises UserError when the tokenizer or the chat template is missing, has code of its own, takes no user's
    message, or leaves out one of the texts."""
    name = f"model folder {model_folder}"
    tokenizer = _load_tokenizer(model_folder, name)
    if not tokenizer.chat_template:
        remedy = "use an instruct model, or add chat_template.jinja"
        raise UserError([Mistake(name, None, "has no chat template", remedy)])
    if isinstance(tokenizer.chat_template, Mapping) and "default" not in tokenizer.chat_template:
        rule = (
            f"has chat templates named {', '.join(sorted(tokenizer.chat_template))}, and none named default"
        )
        raise UserError(
            [Mistake(name, None, rule, "name the one to use default, or add chat_template.jinja")]
        )
    try:
        form = answer_form(tokenizer, date)
    except chat_template.template_errors() as error:
        raise chat_template.refusal(name, error) from error
    role = chat_template.system_role(tokenizer, date)
    configs = [_json(model_folder / file) for file in ("config.json", "generation_config.json")]
    rows = _setting(configs[0], "vocab_size")
    made = Contexts(
        tokenizer, system_prompt, date, role, form, vocabulary=rows if isinstance(rows, int) else None
    )
    mistakes = chat_template.probe_mistakes(name, *made.probes(), system_prompt)
    if mistakes := mistakes or _row_mistakes(made, name):
        raise UserError(mistakes)
    return replace(made, stop_ids=_missing_stops(made, configs))


def _load_tokenizer(model_folder: Path, name: str) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        return cast(Tokenizer, AutoTokenizer.from_pretrained(model_folder, trust_remote_code=False))
    except (OSError, ValueError, ImportError, LookupError, TypeError, AttributeError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "custom code" in str(error):
            rule = "its tokenizer is Python code of its own, and a model's own code is never run"
            remedy = "use a model that transformers knows, with tokenizer.json"
            raise UserError([Mistake(name, None, rule, remedy)]) from error
        rule = f"has no readable tokenizer ({cause})"
        raise UserError([Mistake(name, None, rule, "use a folder with tokenizer.json")]) from error


def _row_mistakes(contexts: Contexts, name: str) -> list[Mistake]:
    """The mistake of a template that writes a token beyond the embedding."""
    text = "".join((*contexts.probes(), contexts.form.opening))
    beyond = [
        token
        for token in contexts.controls.among(contexts.encoded(text))
        if contexts.controls.has_no_row(token)
    ]
    if not beyond:
        return []
    written = f"its chat template writes the token {contexts.controls.texts[beyond[0]]!r}"
    rule = f"{written}, whose id is {beyond[0]:,}, and its embedding has {contexts.vocabulary:,} rows"
    remedy = "enlarge the embedding to the tokenizer (resize_token_embeddings), and save the model again"
    return [Mistake(name, None, rule, remedy)]


def _missing_stops(contexts: Contexts, configs: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """The control token that ends the assistant's turn, unless the model's files already end on one there.

    configs: what config.json and generation_config.json hold. A turn of several messages ends where they
    say: the end of a message is not its end."""
    if contexts.form.opening and contexts.form.thinking is None:
        return ()
    tail = chat_template.after_an_answer(contexts.tokenizer, contexts.date)
    ends = contexts.controls.among(contexts.encoded(tail))
    known: set[object] = {contexts.tokenizer.eos_token_id}
    for config in configs:
        named = _setting(config, "eos_token_id")
        known |= set(named) if isinstance(named, list) else {named}
    return () if not ends or known.intersection(ends) else (ends[0],)


def _setting(config: Mapping[str, Any], name: str) -> Any:
    """A setting of a model's config, or of the part of it that is about text; None without it."""
    text_config = config.get("text_config")
    return config.get(name, text_config.get(name) if isinstance(text_config, Mapping) else None)


def _json(file: Path) -> Mapping[str, Any]:
    """The object in a JSON file; empty if there is none."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, Mapping) else {}
