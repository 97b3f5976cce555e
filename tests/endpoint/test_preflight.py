"""Each way in which an endpoint cannot serve a run is one line, before the run starts."""

import asyncio
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from dynalign.configs.errors import UserError
from dynalign.endpoint.client import EndpointClient
from dynalign.endpoint.opening import open_endpoint
from dynalign.endpoint.preflight import Need, preflight, setting_mistakes
from dynalign.endpoint.wire import Capabilities
from tests.worlds.asked_endpoint import asked_endpoint, question, settings
from tests.worlds.scripted_endpoint import KEY, Act, Exchange, ScriptedEndpoint, scripted_endpoint

ALL: tuple[Need, ...] = ("logprobs", "json_schema", "seeds")


async def at_once(pause_s: float) -> None:
    """No pause between tries."""


def found(
    server: ScriptedEndpoint, file: Path, needs: Collection[Need] = (), **changes: object
) -> Capabilities:
    async def main() -> Capabilities:
        async with asked_endpoint(server.address, file, **changes) as endpoint:
            assert isinstance(endpoint.sender, EndpointClient)
            return await preflight("judge.endpoints.big", endpoint, endpoint.sender, needs, at_once)

    return asyncio.run(main())


def mistake(server: ScriptedEndpoint, file: Path, needs: Collection[Need] = (), **changes: object) -> str:
    with pytest.raises(UserError) as error:
        found(server, file, needs, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def able(exchange: Exchange) -> None:
    """Everything, as vLLM does."""
    body = exchange.body
    text = "yes"
    choice: dict[str, Any] = {"finish_reason": "stop"}
    if "prompt" in body:
        exchange.respond(200, json.dumps({"tokens": [40 + int(body["prompt"])]}))
        return
    if "response_format" in body:
        text = '{"answer": "yes"}'
    if "logprobs" in body:
        top = [{"token": digit, "logprob": -2.0} for digit in "012345"]
        choice["logprobs"] = {"content": [top[0] | {"top_logprobs": top}]}
    if "seed" in body:
        text = f"seed {body['seed']}"
    exchange.answer(choices=[choice | {"message": {"content": text}}])


def test_a_server_that_can_do_everything_is_known_to(tmp_path: Path) -> None:
    with scripted_endpoint(act=able, owned_by="vllm") as server:
        assert found(server, tmp_path / "answers", ALL) == Capabilities(vllm=True)


def test_a_server_that_ignores_schemas_and_seeds_is_known_to_and_is_no_mistake(tmp_path: Path) -> None:
    with scripted_endpoint() as server:
        capabilities = found(server, tmp_path / "answers", ("json_schema", "seeds"))
    assert capabilities == Capabilities(json_schema=False, seeds=False)


def test_a_server_that_refuses_schemas_and_seeds_is_asked_without_them(tmp_path: Path) -> None:
    def strict(exchange: Exchange) -> None:
        if {"seed", "response_format"} & {*exchange.body}:
            exchange.error(400, "unknown parameter")
        else:
            exchange.answer()

    with scripted_endpoint(act=strict) as server:
        capabilities = found(server, tmp_path / "answers", ("json_schema", "seeds"))
    assert capabilities == Capabilities(json_schema=False, seeds=False)


def test_a_model_that_knows_only_max_completion_tokens_is_asked_with_it(tmp_path: Path) -> None:
    def reasoning(exchange: Exchange) -> None:
        if "max_tokens" in exchange.body:
            exchange.error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        else:
            exchange.answer()

    with scripted_endpoint(act=reasoning) as server:
        assert found(server, tmp_path / "answers").limit_name == "max_completion_tokens"


def test_a_server_without_log_probabilities_cannot_serve_the_expected_score(tmp_path: Path) -> None:
    with scripted_endpoint() as server:
        line = mistake(server, tmp_path / "answers", ("logprobs",))
    assert "has no log-probabilities, which the scorer `expected` needs; use the scorer `sampled`" in line


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with scripted_endpoint() as server:
        pass
    line = mistake(server, tmp_path / "answers")
    assert line.startswith(
        f"judge.endpoints.big.address = '{server.address}': does not answer (no connection"
    )


def test_a_wrong_key_is_a_line_without_the_key(tmp_path: Path) -> None:
    with scripted_endpoint(key=KEY) as server:
        line = mistake(server, tmp_path / "answers", key_variable="JUDGE_KEY")
    assert line.startswith("judge.endpoints.big.key_variable = 'JUDGE_KEY': is refused (status 401); export")


def test_an_unknown_model_is_answered_with_the_names_that_are_served(tmp_path: Path) -> None:
    with scripted_endpoint() as server:
        line = mistake(server, tmp_path / "answers", model="huge")
    assert line == (f"judge.endpoints.big.model = 'huge': is unknown at {server.address}; it serves tiny")


@pytest.mark.parametrize(
    ("act", "cause"),
    [
        (lambda exchange: exchange.respond(200, "<html>"), "the response is HTML; does the address end with"),
        (lambda exchange: exchange.error(404, "no such route"), "answers no question (status 404: no such"),
        (lambda exchange: exchange.error(500, "out of memory"), "answers no question (status 500: out of"),
    ],
)
def test_a_server_that_answers_no_question_is_a_line(tmp_path: Path, act: Act, cause: str) -> None:
    with scripted_endpoint(act=act) as server:
        assert cause in mistake(server, tmp_path / "answers")


def test_a_server_that_is_busy_for_a_moment_passes(tmp_path: Path) -> None:
    def busy(exchange: Exchange) -> None:
        exchange.error(429, "slow", Retry_After="2")

    with scripted_endpoint(busy, busy) as server:
        assert found(server, tmp_path / "answers") == Capabilities()


def test_a_budget_below_one_request_is_a_mistake(tmp_path: Path) -> None:
    with scripted_endpoint() as server:
        line = mistake(server, tmp_path / "answers", budget_tokens=10)
    assert "judge.endpoints.big: the budget is reached: 0 of 10 tokens" in line
    assert line.endswith(
        "raise it to continue; it is judge.endpoints.big.budget_tokens or judge.endpoints.big.budget_money"
    )
    assert server.asked == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"address": "judge:8000/v1"}, "address = 'judge:8000/v1': must be a URL that begins with http://"),
        ({"address": "http://"}, "address = 'http://': must be a URL"),
        ({"address": "http://judge:port/v1"}, "must be a URL"),
        ({"address": "http://me:secret@judge/v1"}, "address: must hold neither a password nor a query"),
        ({"address": "ftp://me:secret@judge/v1"}, "address: must be a URL"),
        ({"address": "http://judge/v1?key=secret"}, "address: must hold neither a password nor a query"),
        ({"key_variable": "sk-secret"}, "key_variable: must be the name of an environment variable"),
        ({"key_variable": "hf_secret"}, "key_variable: must be the name of an environment variable"),
        ({"key_variable": "UNSET"}, "key_variable = 'UNSET': is not set in the environment; export UNSET="),
        ({"key_variable": "EMPTY"}, "key_variable = 'EMPTY': is not set"),
        ({"key_variable": "BROKEN"}, "key_variable = 'BROKEN': holds a character that no HTTP header"),
        ({"budget_money": 5.0}, "budget_money = 5.0: needs prices"),
    ],
)
def test_a_setting_that_cannot_work_is_known_without_asking(changes: dict[str, object], line: str) -> None:
    wanted = settings("http://judge:8000/v1").model_copy(update=changes)
    environment = {"EMPTY": " \n", "BROKEN": "sk-secret\nsk-other"}
    (found_mistake,) = setting_mistakes("judge.endpoints.big", wanted, environment)
    assert str(found_mistake).startswith("judge.endpoints.big.")
    assert line in str(found_mistake)
    assert "secret" not in str(found_mistake)


def test_good_settings_are_no_mistake() -> None:
    wanted = settings("https://judge/v1", key_variable="JUDGE_KEY", budget_money=1.0, output_price=0.5)
    assert setting_mistakes("judge.endpoints.big", wanted, {"JUDGE_KEY": f"{KEY}\n"}) == []


def test_an_endpoint_is_opened_from_settings_with_the_key_of_the_environment(tmp_path: Path) -> None:
    async def main(server: ScriptedEndpoint, environment: dict[str, str]) -> str:
        wanted = settings(server.address, key_variable="JUDGE_KEY")
        file = tmp_path / "answers"
        async with open_endpoint("judge.endpoints.big", wanted, file, environment=environment) as endpoint:
            answers = await endpoint.asker("judge").ask(question(1))
        return answers.answers_N[0].text

    with scripted_endpoint(key=KEY) as server:
        assert asyncio.run(main(server, {"JUDGE_KEY": f"{KEY}\n"})) == "answer 1"
        with pytest.raises(UserError, match="JUDGE_KEY"):
            asyncio.run(main(server, {}))
        with pytest.raises(UserError, match="status 401"):
            asyncio.run(main(server, {"JUDGE_KEY": "sk-another"}))
    assert KEY.encode() not in (tmp_path / "answers").read_bytes()
