"""An endpoint in front of a scripted server, and a client process that asks it and may be killed."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.endpoint.ask import Endpoint, pace_of
from dynalign.endpoint.base import Message, Question
from dynalign.endpoint.client import EndpointClient
from dynalign.endpoint.pacing import Pacer
from dynalign.endpoint.store import AnswerFile
from tests.worlds.scripted_endpoint import MODEL


def question(number: int, n: int = 1, max_tokens: int = 4) -> Question:
    """One of many."""
    return Question(MODEL, (Message("user", f"question {number}"),), n=n, max_tokens=max_tokens)


def settings(address: str, **changes: object) -> EndpointSettings:
    """Of an endpoint that is asked fast."""
    values = {"address": address, "model": MODEL, "concurrency": 8, "request_s": 60.0, "deadline_s": 600.0}
    return EndpointSettings.model_validate(values | changes)


def hasty(address: str, **changes: object) -> Pacer:
    """The pacer of those settings, with pauses of a hundredth."""

    async def sleep(pause_s: float) -> None:
        await asyncio.sleep(pause_s / 100)

    return Pacer(address, pace_of(settings(address, **changes)), sleep=sleep)


@asynccontextmanager
async def asked_endpoint(address: str, file: Path, **changes: object) -> AsyncIterator[Endpoint]:
    """An endpoint without preflight, whose retries come at once. changes: settings."""
    answers = AnswerFile(file)
    client = EndpointClient(address)
    endpoint = Endpoint(settings(address, **changes), answers, client, pacer=hasty(address, **changes))
    try:
        yield endpoint
    finally:
        await endpoint.close()
        await client.close()
        await answers.close()


async def _ask(address: str, file: Path, questions: int) -> None:
    async with asked_endpoint(address, file) as endpoint:
        asker = endpoint.asker("judge")
        await asyncio.gather(*[asker.ask(question(each)) for each in range(questions)])


if __name__ == "__main__":
    asyncio.run(_ask(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
