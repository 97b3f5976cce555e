"""A gateway in front of a server that counts and bills: what was answered is not paid for after its death."""

import asyncio
import pickle
from pathlib import Path

import pytest

from dynalign.actors.gateway.endpoints import Endpoints, endpoints_of
from dynalign.actors.gateway.gateway import Gateway, GatewaySpec
from dynalign.configs.errors import UserError
from dynalign.endpoint.opening import EndpointUse
from dynalign.endpoint.wire import Capabilities
from dynalign.run_folder import layout
from tests.worlds.asked_endpoint import question, settings
from tests.worlds.scripted_endpoint import KEY, ScriptedEndpoint, scripted_endpoint


def opening(server: ScriptedEndpoint) -> Endpoints:
    """As the gateway gets it: pickled, with the driver's key."""
    use = EndpointUse("judge.endpoints.big", settings(server.address, key_variable="JUDGE_KEY"))
    made = endpoints_of({"big": use}, {"JUDGE_KEY": KEY, "HOME": "elsewhere"})
    assert made.environment == {"JUDGE_KEY": KEY}
    assert KEY not in repr(made)
    sent: Endpoints = pickle.loads(pickle.dumps(made))
    return sent


def test_a_replaced_gateway_reads_what_was_answered_and_keeps_the_account(tmp_path: Path) -> None:
    async def asked(server: ScriptedEndpoint) -> tuple[str, int]:
        gateway = Gateway(GatewaySpec("q", "info", str(tmp_path)), opening(server))
        await gateway.start()
        answers = await gateway.ask("big", question(1))
        return answers.answers_N[0].text, (await gateway.stats())[0].tokens_total

    with scripted_endpoint(key=KEY) as server:
        first, before = asyncio.run(asked(server))
        billed = server.billed_tokens
        assert before == billed
        again, after = asyncio.run(asked(server))
        assert again == first
        assert (
            after == server.billed_tokens
        )  # the second gateway has examined the endpoint, and asked no more
        assert sum(body["messages"][-1]["content"] == "question 1" for body in server.billed) == 1
    assert (tmp_path / layout.ANSWERS).is_file()


def test_an_endpoint_without_a_key_gets_nothing_of_the_environment() -> None:
    use = EndpointUse("judge.endpoints.big", settings("http://127.0.0.1:9/v1"))
    assert endpoints_of({"big": use}).environment == {}


def test_an_endpoint_that_takes_another_key_is_refused_in_one_line_without_it(tmp_path: Path) -> None:
    with scripted_endpoint(key="another") as server:
        gateway = Gateway(GatewaySpec("q", "info", str(tmp_path)), opening(server))
        with pytest.raises(UserError, match="judge.endpoints.big.key_variable = 'JUDGE_KEY'") as refused:
            asyncio.run(gateway.start())
    assert KEY not in str(refused.value)


def test_a_successor_that_knows_what_the_endpoint_can_do_opens_while_its_server_is_away(
    tmp_path: Path,
) -> None:
    with scripted_endpoint() as server:
        pass
    use = EndpointUse("judge.endpoints.big", settings(server.address), ("logprobs",), Capabilities())
    gateway = Gateway(GatewaySpec("q", "info", str(tmp_path)), endpoints_of({"big": use}, {}))

    async def started() -> str:
        await gateway.start()
        return (await gateway.stats())[0].name

    assert asyncio.run(started()) == "big"


def test_the_mistakes_of_all_endpoints_are_reported_together(tmp_path: Path) -> None:
    with scripted_endpoint() as server:
        uses = {
            name: EndpointUse(f"judge.endpoints.{name}", settings(server.address, model=name))
            for name in ("huge", "tiny", "vast")
        }
        gateway = Gateway(GatewaySpec("q", "info", str(tmp_path)), endpoints_of(uses, {}))
        with pytest.raises(UserError) as refused:
            asyncio.run(gateway.start())
    places = [mistake.place for mistake in refused.value.mistakes]
    assert places == ["judge.endpoints.huge.model", "judge.endpoints.vast.model"]
