"""Whom an offline command asks (prompts make, evaluate, judge check): endpoints and models on our own
engines, by name, all behind one protocol, with journal, budget and a live line.

    async with open_askers({"big": settings}, journal, "prompts", local={"small": model}) as asked:
        answers = await asked.askers["small"].asker.ask(question)

A command that is run again with the same journal asks only what was not answered. Ray and a model's engines
start with the first question to it that the journal does not answer, so that a command whose answers are all
there starts none.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import click

from dynalign.actors.pool.pool_sender import PoolSender
from dynalign.configs.errors import BudgetReached, Mistake, UserError
from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.configs.sections.pool import PoolSettings
from dynalign.endpoint.ask import Endpoint
from dynalign.endpoint.base import Answers, Asker, Question
from dynalign.endpoint.opening import EndpointUse, open_answers, open_endpoints
from dynalign.endpoint.outcome import Sender
from dynalign.endpoint.preflight import Need, setting_mistakes
from dynalign.endpoint.store import AnswerFile
from dynalign.launch.local_model import LocalModel, local_model
from dynalign.launch.on_demand import OnDemand, SenderOnDemand
from dynalign.rollout.judges.respondents import AskedModel, Askers

EVERY_S = 10.0
"""Seconds from one live line to the next."""
MOST_AT_ONCE = 1000
"""Requests to all engines of a model; as many as an endpoint may be sent."""

NO_NEEDS: Mapping[str, Collection[Need]] = MappingProxyType({})
NO_MODELS: Mapping[str, PoolSettings] = MappingProxyType({})
OpenPool = Callable[[LocalModel], AbstractAsyncContextManager[PoolSender]]
OpenRay = Callable[[Collection[LocalModel]], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class OpenAskers:
    """Everybody who can be asked. Example: `OpenAskers(askers, endpoints, [])`."""

    askers: Askers
    """Name → whom it asks, under which model name, at which prices."""
    endpoints: Mapping[str, Endpoint]
    """Name → the same with its account (`account`) and its budget (`budget`)."""
    walls: list[BudgetReached]
    """What was raised where a budget is reached, the first one first."""

    def stop_at_the_wall(self) -> None:
        """Raises BudgetReached if a budget is reached. Whoever takes a failed call for a missing answer asks
        this before it goes on: a raised budget continues."""
        if self.walls:
            raise self.walls[0]

    def line(self, expected: int | None = None) -> str:
        """What was asked so far and what it has cost. expected: questions in all, of a command that asks one
        model."""
        alone = len(self.endpoints) == 1
        lines = {
            name: each.account.line(expected if alone else None) for name, each in self.endpoints.items()
        }
        return "; ".join(line if alone else f"{name}: {line}" for name, line in lines.items())

    @asynccontextmanager
    async def live(
        self, expected: int | None = None, say: Callable[[str], None] | None = None, every_s: float = EVERY_S
    ) -> AsyncIterator[None]:
        """Says `line` on standard error now and then, and once more at the end. say: takes a line."""
        told = say or (lambda line: click.echo(line, err=True))

        async def tell() -> None:
            while True:
                await asyncio.sleep(every_s)
                told(self.line(expected))

        telling = asyncio.create_task(tell())
        try:
            yield
        finally:
            telling.cancel()
            told(self.line(expected))


@asynccontextmanager
async def open_askers(
    endpoints: Mapping[str, EndpointSettings],
    journal: Path,
    purpose: str,
    local: Mapping[str, PoolSettings] = NO_MODELS,
    place: str = "endpoints",
    needs: Mapping[str, Collection[Need]] = NO_NEEDS,
    environment: Mapping[str, str] = os.environ,
    open_pool: OpenPool | None = None,
    open_ray: OpenRay | None = None,
) -> AsyncIterator[OpenAskers]:
    """Endpoints, open and examined, and local models, whose engines start when they are needed; all of them
    are closed again.

    endpoints: by name; their settings are at `<place>.<name>`. journal: the file of answers and bills, made
    if it is not there. purpose: under which questions are accounted, as `prompts`. local: models by name,
    each with its engines; `PoolSettings.model` names it. needs: what an endpoint has to do besides answering,
    by name. open_pool, open_ray: how engines are started; None: on Ray.

    Raises UserError with every mistake (no server there, a wrong key, an unknown model, a model that is not
    here, a journal that cannot be used) before anything is asked. A question to a local model raises besides
    UserError for a cluster that cannot be joined, and RunFailed where no engine can be started."""
    uses = {
        name: EndpointUse(f"{place}.{name}", settings, tuple(needs.get(name, ())))
        for name, settings in endpoints.items()
    }
    models = _models(local, uses, environment)
    if not uses and not models:
        yield OpenAskers({}, {}, [])
        return
    async with AsyncExitStack() as opened:
        answers = await opened.enter_async_context(open_answers(journal))
        found = dict(await opened.enter_async_context(open_endpoints(uses, answers, environment)))
        if models:
            found |= _on_engines(opened, models, answers, open_pool, open_ray)
        walls: list[BudgetReached] = []
        priced = {
            name: _priced(_Noting(endpoint.asker(purpose), walls), endpoint.model, endpoints.get(name))
            for name, endpoint in found.items()
        }
        yield OpenAskers(priced, found, walls)


def _models(
    local: Mapping[str, PoolSettings], uses: Mapping[str, EndpointUse], environment: Mapping[str, str]
) -> dict[str, LocalModel]:
    """The local models. Raises UserError with what can be known of them and of the endpoints without asking
    anybody."""
    found = {}
    mistakes: list[Mistake] = []
    for use in uses.values():
        mistakes += setting_mistakes(use.place, use.settings, environment)
    for name, settings in local.items():
        try:
            found[name] = local_model(name, settings)
        except UserError as error:
            mistakes += error.mistakes
    if mistakes:
        raise UserError(mistakes)
    return found


def _on_engines(
    opened: AsyncExitStack,
    models: Mapping[str, LocalModel],
    answers: AnswerFile,
    open_pool: OpenPool | None,
    open_ray: OpenRay | None,
) -> dict[str, Endpoint]:
    """The models on engines of their own, none of which is started yet. Ray and the engines are closed after
    whoever asks them."""

    def ray_opened() -> AbstractAsyncContextManager[None]:
        if open_ray is not None:
            return open_ray(tuple(models.values()))
        from dynalign.launch.local_pool import ray_for  # loads Ray, which takes seconds

        return ray_for(tuple(models.values()))

    ray = OnDemand(ray_opened)
    opened.push_async_callback(ray.close)

    @asynccontextmanager
    async def engines(model: LocalModel) -> AsyncIterator[Sender]:
        await ray.get()
        if open_pool is not None:
            of_model = open_pool(model)
        else:
            from dynalign.launch.local_pool import open_local_pool

            of_model = open_local_pool(model)
        async with of_model as sender:
            yield sender

    found = {}
    for name, model in models.items():
        sender = OnDemand(partial(engines, model))
        opened.push_async_callback(sender.close)
        found[name] = Endpoint(engine_settings(model), answers, SenderOnDemand(sender))
        opened.push_async_callback(found[name].close)
    return found


def engine_settings(model: LocalModel) -> EndpointSettings:
    """What the journal and the pace of a model's engines go by. A question is sent once: the pool itself asks
    other engines where one dies."""
    pool = model.settings
    longest_s = min(86_400.0, pool.answer_s * 10)
    return EndpointSettings(
        address=model.address,
        model=model.name,
        concurrency=min(MOST_AT_ONCE, pool.engines * pool.max_sequences),
        request_s=longest_s,
        deadline_s=longest_s,
        retries=0,
    )


def _priced(asker: Asker, model: str, settings: EndpointSettings | None) -> AskedModel:
    if settings is None or not (settings.input_price or settings.output_price):
        return AskedModel(asker, model)
    return AskedModel(asker, model, settings.input_price, settings.output_price)


class _Noting:
    """An asker that notes when a budget is reached. walls: where."""

    def __init__(self, asker: Asker, walls: list[BudgetReached]) -> None:
        self._asker = asker
        self._walls = walls

    async def ask(self, question: Question) -> Answers:
        """See `Asker.ask`."""
        try:
            return await self._asker.ask(question)
        except BudgetReached as reached:
            self._walls.append(reached)
            raise
