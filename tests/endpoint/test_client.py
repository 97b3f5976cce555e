"""The client against a real socket: each way a server can answer is answers, or a failure that says what
helps."""

import asyncio
import json
import logging
import math
from dataclasses import replace

import pytest

from dynalign.endpoint.base import Answers, Message, Question
from dynalign.endpoint.client import EndpointClient
from dynalign.endpoint.outcome import FailedCall
from dynalign.endpoint.wire import Capabilities
from tests.worlds.scripted_endpoint import KEY, MODEL, Act, Exchange, ScriptedEndpoint, scripted_endpoint

SECRET_TEXT = "the candidate wrote about a very private garden of roses"
TOO_FEW = {"prompt_tokens": -1, "completion_tokens": 3}
TOO_MANY = {"prompt_tokens": 10**30, "completion_tokens": 3}
QUESTION = Question(MODEL, (Message("user", SECRET_TEXT),), max_tokens=8)


def sent(
    server: ScriptedEndpoint,
    question: Question = QUESTION,
    key: str | None = None,
    capabilities: Capabilities | None = None,
    timeout_s: float = 60.0,
) -> Answers | FailedCall:
    async def once() -> Answers | FailedCall:
        client = EndpointClient(server.address, key, capabilities)
        try:
            return await client.send(question, timeout_s)
        finally:
            await client.close()

    return asyncio.run(once())


def outcome_of(act: Act, question: Question = QUESTION, timeout_s: float = 60.0) -> Answers | FailedCall:
    with scripted_endpoint(act=act) as server:
        return sent(server, question, timeout_s=timeout_s)


def refused(act: Act, timeout_s: float = 60.0) -> FailedCall:
    outcome = outcome_of(act, timeout_s=timeout_s)
    assert isinstance(outcome, FailedCall)
    return outcome


def answered(outcome: Answers | FailedCall) -> Answers:
    assert isinstance(outcome, Answers), outcome
    return outcome


def with_choice(**choice: object) -> Act:
    whole = {"finish_reason": "stop", "message": {"content": "yes"}} | choice
    return lambda exchange: exchange.answer(choices=[whole])


def test_a_question_is_sent_as_it_is_and_its_answers_are_counted() -> None:
    question = replace(QUESTION, n=3, temperature=0.5, seed=7, json_schema='{"type": "object"}')
    with scripted_endpoint() as server:
        answers = answered(sent(server, question))
    assert [answer.text for answer in answers.answers_N] == ["answer 0", "answer 1", "answer 2"]
    assert (answers.prompt_tokens, answers.completion_tokens, answers.metered) == (10, 6, True)
    schema = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    assert server.asked == [
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": SECRET_TEXT}],
            "n": 3,
            "temperature": 0.5,
            "max_tokens": 8,
            "seed": 7,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
    ]


def test_what_a_server_cannot_do_is_not_asked_of_it() -> None:
    question = replace(QUESTION, seed=7, json_schema='{"type": "object"}', choices=("0", "1"), prefill="So: ")
    poor = Capabilities(logprobs=False, json_schema=False, seeds=False, limit_name="max_completion_tokens")
    with scripted_endpoint() as server:
        sent(server, question, capabilities=poor)
    (body,) = server.asked
    assert {*body} == {"model", "messages", "n", "temperature", "max_completion_tokens"}
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert body["messages"][0]["content"].endswith('obeys this JSON schema:\n{"type": "object"}')


def test_a_vllm_server_continues_the_prefill_and_names_the_tokens_of_the_choices() -> None:
    def act(exchange: Exchange) -> None:
        if "prompt" in exchange.body:
            exchange.respond(200, json.dumps({"tokens": [40 + int(exchange.body["prompt"])]}))
        else:
            exchange.answer()

    question = replace(QUESTION, choices=("0", "5"), prefill="Grade: ")
    with scripted_endpoint(act=act) as server:
        answered(sent(server, question, capabilities=Capabilities(vllm=True)))
    body = server.asked[-1]
    assert body["messages"][-1] == {"role": "assistant", "content": "Grade: "}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert body["allowed_token_ids"] == body["logprob_token_ids"] == [40, 45]
    assert len(server.asked) == 3


def test_the_log_probabilities_of_the_choices_are_those_of_the_first_token() -> None:
    top = [
        {"token": "4", "logprob": -0.25},
        {"token": "5", "logprob": -2},
        {"token": "0", "logprob": -9999.0},
    ]
    first = {"token": "4", "logprob": -0.25, "top_logprobs": top}
    later = {"token": "0", "logprob": -0.1, "top_logprobs": []}
    act = with_choice(logprobs={"content": [first, later]})
    question = replace(QUESTION, choices=("0", "3", "4", "5"))
    (answer,) = answered(outcome_of(act, question)).answers_N
    assert answer.choice_logprobs == (-math.inf, -math.inf, -0.25, -2.0)


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}, {"content": [3]}, "no"])
def test_a_server_without_log_probabilities_gives_none(logprobs: object) -> None:
    question = replace(QUESTION, choices=("0", "1"))
    (answer,) = answered(outcome_of(with_choice(logprobs=logprobs), question)).answers_N
    assert answer.choice_logprobs is None


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"finish_reason": "stop"}, "stop"),
        ({"finish_reason": "length"}, "length"),
        ({"finish_reason": "content_filter"}, "refused"),
        ({"message": {"content": None, "refusal": "I cannot."}}, "refused"),
    ],
)
def test_how_an_answer_ended_is_said(choice: dict[str, object], reason: str) -> None:
    (answer,) = answered(outcome_of(with_choice(**choice))).answers_N
    assert answer.finish_reason == reason


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 3}, TOO_FEW, TOO_MANY, "many"])
def test_without_a_count_of_tokens_the_upper_bound_counts(usage: object) -> None:
    answers = answered(outcome_of(lambda exchange: exchange.answer(usage=usage)))
    assert not answers.metered
    assert answers.prompt_tokens > len(SECRET_TEXT)
    assert answers.completion_tokens == QUESTION.max_tokens


@pytest.mark.parametrize(
    ("act", "cause"),
    [
        (lambda exchange: exchange.respond(200, "<html>Welcome</html>"), "HTML"),
        (lambda exchange: exchange.respond(200, '{"choices": [{'), "no JSON"),
        (lambda exchange: exchange.respond(200, "[" * 100_000), "no JSON"),
        (lambda exchange: exchange.respond(200, "[]"), "no choices"),
        (lambda exchange: exchange.answer(choices=[]), "no choices"),
        (lambda exchange: exchange.answer(choices={"0": 1}), "no choices"),
        (with_choice(message=None), "no message"),
        (with_choice(message={"content": ["a"]}), "no text"),
        (with_choice(finish_reason="tool_calls"), "none of stop"),
        (with_choice(finish_reason=["stop"]), "none of stop"),
    ],
)
def test_a_broken_response_with_status_200_may_pass_and_may_be_billed(act: Act, cause: str) -> None:
    failed = refused(act)
    assert cause in failed.cause
    assert (failed.again, failed.billed, failed.status) == ("some times", True, 200)


@pytest.mark.parametrize(
    ("status", "again", "billed"),
    [
        (400, "never", False),
        (401, "never", False),
        (403, "never", False),
        (404, "never", False),
        (422, "never", False),
        (408, "some times", True),
        (409, "some times", False),
        (429, "until the deadline", False),
        (500, "some times", True),
        (502, "some times", True),
        (503, "until the deadline", False),
    ],
)
def test_a_status_says_whether_another_try_helps(status: int, again: str, billed: bool) -> None:
    failed = refused(lambda exchange: exchange.error(status, "no"))
    assert (failed.again, failed.billed, failed.status) == (again, billed, status)
    assert failed.slow_down == (status in (429, 503))


def test_a_quota_that_is_used_up_does_not_pass() -> None:
    text = json.dumps({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})
    assert refused(lambda exchange: exchange.respond(429, text)).again == "never"


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry_After": "3"}, 3.0),
        ({"retry_after_ms": "250"}, 0.25),
        ({"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "inf"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_each_of_its_forms(headers: dict[str, str], wait_s: float | None) -> None:
    assert refused(lambda exchange: exchange.error(429, "slow", **headers)).retry_after_s == wait_s


@pytest.mark.parametrize(
    "act",
    [
        lambda exchange: exchange.die(0),
        lambda exchange: exchange.die(40),
        lambda exchange: exchange.drip(0.02),
    ],
)
def test_an_answer_that_does_not_arrive_may_be_billed(act: Act) -> None:
    failed = refused(act, timeout_s=0.3)
    assert (failed.again, failed.billed) == ("some times", True)


def test_text_that_utf_8_cannot_carry_is_sent_and_received_with_question_marks() -> None:
    question = replace(QUESTION, messages=(Message("user", "half \ud83d"),))
    with scripted_endpoint(act=with_choice(message={"content": "\udc00 a half"})) as server:
        answers = answered(sent(server, question))
    assert server.asked[0]["messages"][0]["content"] == "half ?"
    assert answers.answers_N[0].text == "? a half"


def test_a_server_that_is_not_there_is_waited_for_and_bills_nothing() -> None:
    with scripted_endpoint() as server:
        pass
    failed = sent(server)
    assert isinstance(failed, FailedCall)
    assert (failed.again, failed.billed, failed.cause) == (
        "until the deadline",
        False,
        "no connection (ConnectError)",
    )


def quoting(status: int) -> Act:
    """Quotes key, headers and question, as servers do."""

    def act(exchange: Exchange) -> None:
        asked = exchange.body["messages"][0]["content"]
        exchange.error(status, f"bad key {KEY[:20]} in Authorization: Bearer {KEY}; input: {asked!r}")

    return act


def windows(text: str) -> set[str]:
    return {text[start : start + 12] for start in range(len(text) - 11)}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500])
def test_neither_key_nor_question_is_quoted_in_a_cause(status: int) -> None:
    with scripted_endpoint(act=quoting(status), key=KEY) as server:
        failed = sent(server, key=KEY)
    assert isinstance(failed, FailedCall)
    assert not windows(failed.cause) & (windows(KEY) | windows(SECRET_TEXT))
    assert failed.cause.startswith(f"status {status}")


def test_the_key_reaches_no_log_at_any_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), scripted_endpoint(quoting(500), key=KEY) as server:
        assert isinstance(sent(server, key=KEY), FailedCall)
        answered(sent(server, key=KEY))
        assert isinstance(sent(server, key="sk-wrong-9876543210"), FailedCall)
    assert "POST" in caplog.text, "the libraries log, and were heard"
    for secret in (KEY, KEY[:12], "sk-wrong", SECRET_TEXT):
        assert secret not in caplog.text


def test_without_a_key_no_header_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-of-the-admin")
    with scripted_endpoint(key="sk-none-of-these") as server:
        failed = sent(server)
    assert isinstance(failed, FailedCall)
    assert failed.status == 401
    assert server.keys_seen == [None]
