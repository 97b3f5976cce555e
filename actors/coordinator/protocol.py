"""The coordinator's methods, as the supervision and remote shells call them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dynalign.actors.remote import RemoteMethod
from dynalign.actors.worker.protocol import RolloutWorkerHandle
from dynalign.run_folder.run_status import AlarmStatus, RunStatus, SupervisionStatus


@dataclass(frozen=True)
class Ending:
    """How a run ended. Example: `Ending("finished", {"issued": 32, "trained": 28, …}, "…/step-000004")`."""

    state: Literal["finished", "interrupted"]
    """`finished`: all steps, or converged. `interrupted`: stopped before, and can be continued."""

    ledger: dict[str, Any]
    """The ledger's last status (`LedgerActor.status`), counts in groups."""

    checkpoint: str | None
    """Path of the newest whole checkpoint; None without one."""

    cause: str | None = None
    """Which alarm stopped the run, and why; None where none did."""

    alarms: tuple[AlarmStatus, ...] = ()
    """The alarms that fired after the last step."""


class CoordinatorHandle(Protocol):
    """The actor's handle, as the supervision holds it. `Coordinator` says what each method does and
    raises."""

    train: RemoteMethod[[], Ending]
    look: RemoteMethod[[SupervisionStatus, Mapping[str, Any]], RunStatus]
    control: RemoteMethod[[str], None]
    add_worker: RemoteMethod[[str, RolloutWorkerHandle], None]
    remove_worker: RemoteMethod[[str], None]
    ledger_replaced: RemoteMethod[[], None]
