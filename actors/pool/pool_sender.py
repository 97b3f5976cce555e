"""A pool behind a journal: a `Sender`, which takes the place of a client of an endpoint."""

import asyncio
from typing import Any

from dynalign.configs.errors import EndpointRefused, EndpointUnreachable
from dynalign.endpoint.base import Answers, Asker, Question
from dynalign.endpoint.outcome import FailedCall


class PoolSender:
    """pool: it asks other engines by itself where one dies, so that a question comes here once.
    given_up: its result says why there will be no engine any more."""

    def __init__(self, pool: Asker, given_up: asyncio.Future[str]) -> None:
        self._pool = pool
        self._given_up = given_up

    async def send(self, question: Question, timeout_s: float) -> Answers | FailedCall:
        """See `Sender.send`. Nothing that fails here costs money or tokens."""
        asking = asyncio.ensure_future(self._pool.ask(question))
        either: list[asyncio.Future[Any]] = [asking, self._given_up]
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return FailedCall(self._given_up.result(), again="never", billed=False)
            return asking.result()
        except EndpointRefused as error:
            return FailedCall(error.cause, again="never", billed=False)
        except EndpointUnreachable as error:
            return FailedCall(error.cause, again="some times", billed=False)
        except TimeoutError:
            return FailedCall(f"no answer within {timeout_s:.4g} s", again="some times", billed=False)
        finally:
            asking.cancel()
            await asyncio.wait([asking])
