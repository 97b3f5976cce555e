"""The gateway by its name, as workers have it: an `Asker` whose questions survive its replacement."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from ray.exceptions import RayError

from dynalign.actors.named_actor import NamedActor, named
from dynalign.configs.errors import (
    BudgetReached,
    DeadlineExceeded,
    DynalignError,
    EndpointError,
    EndpointUnreachable,
    one_line,
)
from dynalign.endpoint.base import Answers, Question

HOLD_S = 120.0
"""Longest that a question at the budget's wall is held, in seconds. The supervision takes a second or two to
hear of it, and the step under way may end meanwhile (`deadlines.stop_s`)."""


class GatewayLink:
    """name: the gateway's Ray name. endpoint: whom it asks, by name. give_up_s: seconds without any gateway
    after which nothing is reachable. answer_s: seconds that the endpoint may take for one question, all its
    retries included. find: as `named_actor.named`.

    A question that was under way when the gateway died is asked again: the journal makes that cheap. At the
    budget's wall the run is stopped by its supervision, which hears of it from the gateway; meanwhile the
    question is held for `hold_s` seconds, so that no group is withheld for it.
    """

    def __init__(
        self,
        name: str,
        endpoint: str,
        give_up_s: float,
        answer_s: float,
        find: Callable[[str], Any] = named,
        hold_s: float = HOLD_S,
    ) -> None:
        self._endpoint = endpoint
        self._gateway = NamedActor("gateway", name, give_up_s, find=find)
        self._answer_s = answer_s
        self._hold_s = hold_s

    async def ask(self, question: Question) -> Answers:
        """See `Asker.ask`. Raises what the gateway raises, without Ray's wrapping, and nothing but
        EndpointError: whatever goes wrong on the way is no reason to end a worker."""
        try:
            return cast(
                Answers, await self._gateway.call("ask", self._endpoint, question, wait_s=self._answer_s)
            )
        except BudgetReached:
            await asyncio.sleep(self._hold_s)
            raise
        except EndpointError:
            raise
        except DeadlineExceeded as error:
            raise EndpointUnreachable(self._endpoint, str(error)) from error
        except (DynalignError, RayError) as error:
            raise EndpointUnreachable(self._endpoint, one_line(error)) from error
