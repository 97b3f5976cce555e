"""The one owner of a run's endpoints: what all workers ask goes through it, and is paid for once.

    worker ─► GatewayLink ─► Gateway ─► journal ─► pacing ─► budget ─► one of the endpoints
                                │ an answer is on disk before it is used
                                └─ stats: tokens, money and rate, for status and metrics

Budget and pacing are of the run, not of a worker, so they need one process. It may die at any moment: its
successor reads the journal, workers ask again, and what was answered is not paid for twice.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from dynalign.actors import logs
from dynalign.actors.gateway.protocol import OpenEndpoint, Spent
from dynalign.actors.packed_calls import PackedCalls
from dynalign.configs.errors import BudgetReached, EndpointError, EndpointRefused
from dynalign.endpoint.base import Answers, Question
from dynalign.run_folder import layout
from dynalign.run_folder.run_status import EndpointStatus

CALLS = 100_000
"""Questions that may be pending in the actor at one time. With one more, a sign of life would wait."""

_WINDOW_S = 60.0
"""Seconds over which the rate is measured."""

Opening = Callable[[Path], AbstractAsyncContextManager[Mapping[str, OpenEndpoint]]]
"""Opens the endpoints, by name, with their journal at a path. It can be pickled, and holds what it needs of
the driver's environment, such as keys: the gateway's process has another environment."""


@dataclass(frozen=True)
class GatewaySpec:
    """The arguments of a gateway: GatewaySpec("quickstart", "info", "runs/quickstart")."""

    name: str
    """The run's name."""
    log_level: str
    """Least severe lines that it logs."""
    run_folder: str
    """Path of the run folder, on the gateway's node."""


class Gateway(PackedCalls):
    """The actor. Call `start` once; `ask` may be called at any time and waits for it."""

    def __init__(
        self, spec: GatewaySpec, opening: Opening, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """clock: seconds, monotonic."""
        self._spec = spec
        self._opening = opening
        self._started = asyncio.Event()
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    async def start(self) -> None:
        """Opens the journal and the ways to the endpoints. Raises UserError for what cannot be used."""
        logs.configure(self._spec, "gateway", lambda: "-")
        # Never closed: whatever ends this process, the journal is whole.
        self._open = self._opening(Path(self._spec.run_folder) / layout.ANSWERS)
        self._endpoints = await self._open.__aenter__()
        self._accounts = {name: _Account() for name in self._endpoints}
        self._started.set()

    async def started(self) -> None:
        """Returns once it can answer."""
        await self._started.wait()

    async def ask(self, endpoint: str, question: Question) -> Answers:
        """See `Asker.ask`. endpoint: its name in the settings."""
        await self.started()
        if endpoint not in self._endpoints:
            raise EndpointRefused(endpoint, f"the gateway of run {self._spec.name} knows no such endpoint")
        account = self._accounts[endpoint]
        account.in_flight += 1
        try:
            return await self._endpoints[endpoint].ask(question)
        except EndpointError as error:
            account.failures += 1
            if isinstance(error, BudgetReached):
                account.budget_reached = error.cause
            raise
        finally:
            account.in_flight -= 1
            account.questions += 1

    async def stats(self) -> tuple[EndpointStatus, ...]:
        """The account of each endpoint so far; an answer is a sign of life.

        Raises JournalError if the file of answers cannot be read."""
        await self.started()
        now_s = self._clock()
        return tuple(
            [
                self._accounts[name].status(name, await endpoint.spent(), now_s)
                for name, endpoint in self._endpoints.items()
            ]
        )


@dataclass
class _Account:
    """Of one endpoint, in this process."""

    in_flight: int = 0
    questions: int = 0
    failures: int = 0
    budget_reached: str = ""
    spent: deque[tuple[float, int]] = field(default_factory=deque)
    """(seconds, tokens) at each sign of life of the last minute."""

    def status(self, name: str, spent: Spent, now_s: float) -> EndpointStatus:
        """spent: so far, by the journal. now_s: on the gateway's clock."""
        self.spent.append((now_s, spent.tokens))
        while now_s - self.spent[0][0] > _WINDOW_S:
            self.spent.popleft()
        since_s, before = self.spent[0]
        rate = (spent.tokens - before) / (now_s - since_s) if now_s > since_s else 0.0
        return EndpointStatus(
            name=name,
            questions_in_flight=self.in_flight,
            questions_total=self.questions,
            failures_total=self.failures,
            tokens_total=spent.tokens,
            cost_total=spent.cost,
            tokens_per_s=max(0.0, rate),
            budget_reached=self.budget_reached,
        )
