"""The chat completions of the OpenAI protocol: a question as a request body, and a response as answers."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dynalign.endpoint.base import Answer, Answers, Question
from dynalign.endpoint.outcome import FailedCall, most_completion_tokens, most_prompt_tokens

TOP_LOGPROBS = 20
"""The most that OpenAI and vLLM report at a position."""
NOT_REPORTED = -9999.0
"""What OpenAI and vLLM write for a token that is outside of what they report."""
MOST_TOKENS = 10**12
"""A larger count is none."""
SCHEMA_IN_WORDS = "Answer with one JSON object, and nothing else, that obeys this JSON schema:\n{schema}"
FINISHED: Mapping[str, Literal["stop", "length", "refused"]] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "content_filter": "refused",
}
"""`finish_reason` of a server → that of an answer."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server can do besides answering. `preflight.py` finds it out.

    Example, vLLM's own server: `Capabilities(vllm=True)`.
    """

    logprobs: bool = True
    """It reports log-probabilities."""
    json_schema: bool = True
    """It makes answers obey a JSON schema. Where it does not, the schema is asked for in words."""
    seeds: bool = True
    """It takes a seed."""
    vllm: bool = False
    """It is vLLM: it continues a prefill, and reports the log-probabilities of named tokens."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What it calls the most tokens of one answer. OpenAI's reasoning models know only the second."""


def request_body(
    question: Question, capabilities: Capabilities, choice_ids: Sequence[int] | None = None
) -> dict[str, object]:
    """The request of a question, in what the server can do.

    choice_ids: the token of each of the question's choices, where the server is vLLM and each is one token.
    """
    messages = [{"role": each.role, "content": utf8(each.content)} for each in question.messages]
    body: dict[str, object] = {
        "model": question.model,
        "messages": messages,
        "n": question.n,
        "temperature": question.temperature,
        capabilities.limit_name: question.max_tokens,
    }
    if question.seed is not None and capabilities.seeds:
        body["seed"] = question.seed
    if question.json_schema is not None and capabilities.json_schema:
        schema = {"name": "answer", "schema": json.loads(question.json_schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif question.json_schema is not None:
        messages[-1]["content"] += "\n\n" + SCHEMA_IN_WORDS.format(schema=utf8(question.json_schema))
    if question.choices and capabilities.logprobs:
        body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        if choice_ids is not None:
            body |= {"allowed_token_ids": [*choice_ids], "logprob_token_ids": [*choice_ids]}
    if question.prefill and capabilities.vllm:
        messages.append({"role": "assistant", "content": utf8(question.prefill)})
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


def utf8(text: str) -> str:
    """The text, with `?` for a lone surrogate, which neither HTTP nor SQLite can carry."""
    return text.encode("utf-8", "replace").decode()


def answers_from(text: str, question: Question) -> Answers | FailedCall:
    """The answers in a response with status 200, whatever the server has put into it."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        kind = "HTML" if text.lstrip()[:1] == "<" else "no JSON"
        return _broken(f"the response is {kind}; does the address end with /v1?")
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices:
        return _broken("the response holds no choices")
    answers = [_answer(choice, question) for choice in choices[: question.n]]
    broken = next((each for each in answers if isinstance(each, FailedCall)), None)
    if broken is not None:
        return broken
    usage = body.get("usage")
    prompt_tokens = _count(usage, "prompt_tokens")
    completion_tokens = _count(usage, "completion_tokens")
    metered = prompt_tokens is not None and completion_tokens is not None
    return Answers(
        tuple(each for each in answers if isinstance(each, Answer)),
        utf8(model) if isinstance(model := body.get("model"), str) else question.model,
        prompt_tokens if metered and prompt_tokens is not None else most_prompt_tokens(question),
        completion_tokens if metered and completion_tokens is not None else most_completion_tokens(question),
        metered,
    )


def _broken(cause: str) -> FailedCall:
    """The server has answered, and may bill for it."""
    return FailedCall(cause, again="some times", billed=True, status=200)


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and 0 <= value <= MOST_TOKENS else None


def _answer(choice: object, question: Question) -> Answer | FailedCall:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return _broken("a choice holds no message")
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        return _broken("the content of a message is no text")
    text = utf8(content or "")
    reason = FINISHED.get(str(choice.get("finish_reason")))
    if message.get("refusal"):
        return Answer(text, "refused")
    if reason is None:
        return _broken("an answer ended for a reason that is none of stop, length and content_filter")
    return Answer(text, reason, _choice_logprobs(choice.get("logprobs"), question.choices))


def _choice_logprobs(logprobs: object, choices: tuple[str, ...]) -> tuple[float, ...] | None:
    """The log-probability of each choice as first token, in nats; None where the server reports none."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = content[0] if isinstance(content, list) and content else None
    if not choices or not isinstance(first, dict):
        return None
    top = first.get("top_logprobs")
    reported: dict[str, float] = {}
    for each in [first, *(top if isinstance(top, list) else [])]:
        value = each.get("logprob") if isinstance(each, dict) else None
        if isinstance(each, dict) and isinstance(value, int | float) and value > NOT_REPORTED:
            reported.setdefault(str(each.get("token")), float(value))
    return tuple(reported.get(choice, -math.inf) for choice in choices) if reported else None
