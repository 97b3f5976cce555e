"""vLLM's own OpenAI server with a tiny random model: examined, asked, killed, and waited for."""

import asyncio
import math
from pathlib import Path

import pytest

from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.endpoint.base import Answers, Message, Question
from dynalign.endpoint.client import EndpointClient
from dynalign.endpoint.opening import open_endpoint
from dynalign.endpoint.wire import Capabilities
from tests.worlds.tiny_models import tiny_llama
from tests.worlds.vllm_server import KEY, VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

QUESTIONS = 24


def question(number: int, **changes: object) -> Question:
    values = {"model": "tiny", "messages": (Message("user", f"w{number + 3} w4 w5"),), "max_tokens": 24}
    return Question(**(values | changes))  # type: ignore[arg-type]


async def examined(server: VllmServer, wanted: EndpointSettings, file: Path) -> None:
    environment = {"SERVER_KEY": KEY}
    async with open_endpoint("judge", wanted, file, ("logprobs", "seeds"), environment) as endpoint:
        assert isinstance(endpoint.sender, EndpointClient)
        assert endpoint.sender.capabilities == Capabilities(vllm=True)
        asker = endpoint.asker("judge")
        choices = ("w5", "w6", "w7", "w8")
        graded = await asker.ask(question(1, choices=choices, max_tokens=1, prefill=" w9", temperature=0.0))
        (answer,) = graded.answers_N
        assert answer.choice_logprobs is not None
        assert all(math.isfinite(each) for each in answer.choice_logprobs), (
            "tokens that are named are reported"
        )
        assert answer.text.strip() == choices[answer.choice_logprobs.index(max(answer.choice_logprobs))]
        assert (graded.prompt_tokens, graded.completion_tokens) == (4, 1)
        several = await asker.ask(question(2, n=4, seed=5))
        assert len({each.text for each in several.answers_N}) > 1

        asked = [asyncio.create_task(asker.ask(question(each, n=4))) for each in range(10, 10 + QUESTIONS)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(1.0)
        server.start()
        answers: list[Answers] = await asyncio.gather(*asked)
        assert [len(each.answers_N) for each in answers] == [4] * QUESTIONS


def test_a_judge_of_vllms_own_server_is_examined_asked_and_outlives_the_servers_death(tmp_path: Path) -> None:
    server = VllmServer(tiny_llama(tmp_path / "tiny", hidden=128), tmp_path / "server.log")
    wanted = EndpointSettings(
        address=server.address, model="tiny", key_variable="SERVER_KEY", concurrency=4, deadline_s=900.0
    )
    server.start()
    try:
        server.wait()
        asyncio.run(examined(server, wanted, tmp_path / "answers"))
    finally:
        server.kill()
    assert KEY not in (tmp_path / "answers").read_bytes().decode(errors="replace")
