"""A rollout worker's methods, as supervision and coordinator call them."""

from typing import Any, Protocol

from dynalign.actors.remote import RemoteMethod

WorkerProcess = tuple[str, int, float]
"""Host name, process id, and when the process began (Unix seconds)."""


class RolloutWorkerHandle(Protocol):
    """The actor's handle. `RolloutWorker` says what each method does and raises."""

    here: RemoteMethod[[], WorkerProcess]
    start: RemoteMethod[[], None]
    serve: RemoteMethod[[], None]
    stop: RemoteMethod[[], None]
    stats: RemoteMethod[[], dict[str, Any]]
    sleep: RemoteMethod[[], None]
    wake: RemoteMethod[[], None]
