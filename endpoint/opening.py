"""From settings to an endpoint that is open, examined and closed again."""

import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from dynalign.configs.errors import UserError
from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.endpoint.ask import Endpoint
from dynalign.endpoint.client import EndpointClient
from dynalign.endpoint.preflight import Need, preflight, setting_mistakes
from dynalign.endpoint.store import AnswerFile


@asynccontextmanager
async def open_endpoint(
    place: str,
    settings: EndpointSettings,
    file: Path,
    needs: Collection[Need] = (),
    environment: Mapping[str, str] = os.environ,
) -> AsyncIterator[Endpoint]:
    """An endpoint that has been asked a few small questions.

    place: the dotted path of the settings, for mistakes. file: its journal and budget. needs: what it has to
    do besides answering. Raises UserError as `preflight` does, or if the file cannot be used."""
    mistakes = setting_mistakes(place, settings, environment)
    if mistakes:
        raise UserError(mistakes)
    answers = AnswerFile(file)
    client = EndpointClient(settings.address, key_from(environment, settings.key_variable))
    endpoint = Endpoint(settings, answers, client)
    try:
        await preflight(place, endpoint, client, needs)
        yield endpoint
    finally:
        await endpoint.close()
        await client.close()
        await answers.close()


def key_from(environment: Mapping[str, str], variable: str | None) -> str | None:
    """The key in the variable that a setting names; None where it names none, or the variable is empty."""
    return None if variable is None else environment.get(variable, "").strip() or None
