"""From settings to endpoints that are open, examined and closed again."""

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.endpoint.ask import Endpoint
from dynalign.endpoint.client import EndpointClient
from dynalign.endpoint.preflight import Need, preflight, setting_mistakes
from dynalign.endpoint.store import AnswerFile
from dynalign.endpoint.wire import Capabilities


@dataclass(frozen=True)
class EndpointUse:
    """One endpoint, and what it is used for.

    Example: `EndpointUse("judge.endpoints.big", settings, needs=("logprobs",))`.
    """

    place: str
    """The dotted path of its settings, for mistakes."""
    settings: EndpointSettings
    """Which model is asked where, how fast, and what it may cost."""
    needs: tuple[Need, ...] = ()
    """What it has to do besides answering."""
    capabilities: Capabilities | None = None
    """What it was found to do; None: it is asked when it is opened. Known ones let it be opened while its
    server is away."""


@asynccontextmanager
async def open_answers(file: Path) -> AsyncIterator[AnswerFile]:
    """The file of answers and bills. Raises UserError if it cannot be used."""
    answers = AnswerFile(file)
    try:
        yield answers
    finally:
        await answers.close()


@asynccontextmanager
async def open_endpoints(
    uses: Mapping[str, EndpointUse], answers: AnswerFile, environment: Mapping[str, str] = os.environ
) -> AsyncIterator[Mapping[str, Endpoint]]:
    """Endpoints by name, that have been asked a few small questions, all with one journal.

    answers: it, and the account of their budgets. Raises UserError with the mistakes of all of them, as
    `preflight` does."""
    mistakes = [
        mistake for use in uses.values() for mistake in setting_mistakes(use.place, use.settings, environment)
    ]
    if mistakes:
        raise UserError(mistakes)
    async with AsyncExitStack() as opened:
        endpoints: dict[str, Endpoint] = {}
        examined = []
        for name, use in uses.items():
            key = key_from(environment, use.settings.key_variable)
            client = EndpointClient(use.settings.address, key, use.capabilities)
            opened.push_async_callback(client.close)
            endpoints[name] = Endpoint(use.settings, answers, client)
            opened.push_async_callback(endpoints[name].close)
            if use.capabilities is None:
                examined.append(_mistakes_of(use, endpoints[name], client))
        if mistakes := [mistake for found in await asyncio.gather(*examined) for mistake in found]:
            raise UserError(mistakes)
        yield endpoints


@asynccontextmanager
async def open_endpoint(
    place: str,
    settings: EndpointSettings,
    file: Path,
    needs: Collection[Need] = (),
    environment: Mapping[str, str] = os.environ,
) -> AsyncIterator[Endpoint]:
    """One endpoint with a journal of its own. Parameters: see `EndpointUse`. Raises UserError as
    `open_endpoints` does, or if the file cannot be used."""
    use = EndpointUse(place, settings, tuple(needs))
    if mistakes := setting_mistakes(place, settings, environment):
        raise UserError(mistakes)
    async with open_answers(file) as answers, open_endpoints({place: use}, answers, environment) as opened:
        yield opened[place]


def key_from(environment: Mapping[str, str], variable: str | None) -> str | None:
    """The key in the variable that a setting names; None where it names none, or the variable is empty."""
    return None if variable is None else environment.get(variable, "").strip() or None


async def _mistakes_of(use: EndpointUse, endpoint: Endpoint, client: EndpointClient) -> list[Mistake]:
    try:
        await preflight(use.place, endpoint, client, use.needs)
    except UserError as error:
        return list(error.mistakes)
    return []
