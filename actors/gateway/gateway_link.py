"""The gateway by its name, as workers have it: an `Asker` whose questions survive its replacement."""

from collections.abc import Callable
from typing import Any, cast

from dynalign.actors.named_actor import NamedActor, named
from dynalign.configs.errors import DeadlineExceeded, EndpointUnreachable
from dynalign.endpoint.base import Answers, Question


class GatewayLink:
    """name: the gateway's Ray name. endpoint: whom it asks, by name. give_up_s: seconds without any gateway
    after which nothing is reachable. answer_s: seconds that the endpoint may take for one question, all its
    retries included. find: as `named_actor.named`.

    A question that was under way when the gateway died is asked again: the journal makes that cheap.
    """

    def __init__(
        self,
        name: str,
        endpoint: str,
        give_up_s: float,
        answer_s: float,
        find: Callable[[str], Any] = named,
    ) -> None:
        self._endpoint = endpoint
        self._gateway = NamedActor("gateway", name, give_up_s, find=find)
        self._answer_s = answer_s

    async def ask(self, question: Question) -> Answers:
        """See `Asker.ask`. Raises what the gateway raises, without Ray's wrapping."""
        try:
            return cast(
                Answers, await self._gateway.call("ask", self._endpoint, question, wait_s=self._answer_s)
            )
        except DeadlineExceeded as error:
            raise EndpointUnreachable(self._endpoint, str(error)) from error
