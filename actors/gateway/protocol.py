"""What the gateway opens, and its methods as supervision and workers call them."""

from typing import Protocol

from dynalign.actors.remote import RemoteMethod
from dynalign.endpoint.base import Asker
from dynalign.run_folder.run_status import EndpointStatus


class Spent(Protocol):
    """What was spent on an endpoint, by all processes that share its budget, reservations included."""

    @property
    def tokens(self) -> int:
        """Read and written."""
        ...

    @property
    def cost(self) -> float:
        """In the currency of the prices."""
        ...


class OpenEndpoint(Asker, Protocol):
    """An endpoint with its journal, budget and pacing, open in one process."""

    async def spent(self) -> Spent:
        """So far."""
        ...


class GatewayHandle(Protocol):
    """The handle of a `Gateway`, which says what each method does and raises. Workers ask by packed calls."""

    start: RemoteMethod[[], None]
    stats: RemoteMethod[[], tuple[EndpointStatus, ...]]
