"""From the settings of a run's endpoints to what its gateway opens: journal, pacing, budget, client."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dynalign.actors.gateway.protocol import OpenEndpoint
from dynalign.endpoint.ask import Endpoint
from dynalign.endpoint.base import Answers, Question
from dynalign.endpoint.budget import Amount
from dynalign.endpoint.opening import EndpointUse, open_answers, open_endpoints

PURPOSE = "judge"
"""Under which questions of a run are accounted."""


@dataclass(frozen=True)
class Endpoints:
    """The endpoints of a run, by name: an `Opening`. It travels from the driver to the gateway.

    Example: `Endpoints({"big": EndpointUse("judge.endpoints.big", settings)}, {"JUDGE_KEY": "…"})`.
    """

    uses: Mapping[str, EndpointUse]
    """Name → endpoint."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The variables that hold their keys; never shown."""

    @asynccontextmanager
    async def __call__(self, file: Path) -> AsyncIterator[Mapping[str, OpenEndpoint]]:
        """All of them, open, with one file for their answers and bills. Raises UserError for one that cannot
        be used."""
        async with (
            open_answers(file) as answers,
            open_endpoints(self.uses, answers, self.environment) as endpoints,
        ):
            yield {name: _Opened(endpoint) for name, endpoint in endpoints.items()}


def endpoints_of(uses: Mapping[str, EndpointUse], environment: Mapping[str, str] = os.environ) -> Endpoints:
    """With the keys from the driver's environment, and nothing else of it."""
    names = (use.settings.key_variable for use in uses.values())
    return Endpoints(
        uses, {name: environment[name] for name in names if name is not None and name in environment}
    )


class _Opened:
    """An `OpenEndpoint`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def ask(self, question: Question) -> Answers:
        """See `Asker.ask`."""
        return await self._endpoint.answers(question, PURPOSE)

    async def spent(self) -> Amount:
        """By all processes, reservations included."""
        return await self._endpoint.budget.spent()
