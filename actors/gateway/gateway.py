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
from dataclasses import dataclass
from pathlib import Path

from dynalign.actors import logs
from dynalign.actors.gateway.protocol import OpenEndpoint
from dynalign.actors.packed_calls import PackedCalls
from dynalign.configs.errors import EndpointError
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
        self._in_flight = 0
        self._questions = 0
        self._failures = 0
        self._spent: deque[tuple[float, int]] = deque()
        """(seconds, tokens) at each sign of life of the last minute."""

    async def start(self) -> None:
        """Opens the journal and the ways to the endpoints. Raises UserError for what cannot be used."""
        logs.configure(self._spec, "gateway", lambda: "-")
        # Never closed: whatever ends this process, the journal is whole.
        self._open = self._opening(Path(self._spec.run_folder) / layout.ANSWERS)
        self._endpoints = await self._open.__aenter__()
        self._started.set()

    async def started(self) -> None:
        """Returns once it can answer."""
        await self._started.wait()

    async def ask(self, endpoint: str, question: Question) -> Answers:
        """See `Asker.ask`. endpoint: its name in the settings."""
        self._in_flight += 1
        try:
            await self.started()
            return await self._endpoints[endpoint].ask(question)
        except EndpointError:
            self._failures += 1
            raise
        finally:
            self._in_flight -= 1
            self._questions += 1

    async def stats(self) -> EndpointStatus:
        """The account so far; an answer is a sign of life."""
        await self.started()
        spent = [await each.spent() for each in self._endpoints.values()]
        tokens = sum(each.tokens for each in spent)
        now_s = self._clock()
        self._spent.append((now_s, tokens))
        while now_s - self._spent[0][0] > _WINDOW_S:
            self._spent.popleft()
        since_s, before = self._spent[0]
        rate = (tokens - before) / (now_s - since_s) if now_s > since_s else 0.0
        return EndpointStatus(
            questions_in_flight=self._in_flight,
            questions_total=self._questions,
            failures_total=self._failures,
            tokens_total=tokens,
            cost_total=sum(each.cost for each in spent),
            tokens_per_s=max(0.0, rate),
        )
