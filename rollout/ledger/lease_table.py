"""Every lease of the run, whatever its kind: who holds it, until when, and what becomes of it when its worker
dies.

    waiting ──grant──► held ──release──► reported or void: the kind decides what follows
       ▲                │ expired, or its worker left
       └──give_back─────┤
                        └ its worker died: given back under quarantine, or given up as poison

What is leased comes from the kinds, in their order: the first kind that has something serves first. A kind
knows what waits and what a report means; the table knows nothing of groups, items or scores.

Two rules keep the quarantine free of starvation and deadlock. A worker that holds nothing may have whatever
is next, a prompt under quarantine too. A worker that holds something passes such a prompt over only while
some worker has one; otherwise it gets nothing and so runs empty. While prompts under quarantine wait, there
is therefore always a worker that has one, or one that is about to. A group that waits has no age yet, since
its age counts from its lease, so passing it over does not touch the age bound.
"""

from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from math import inf
from typing import Any, Protocol

from dynalign.rollout.ledger.quarantine import Quarantine
from dynalign.rollout.ledger.values import PromptId


class HeldLease(Protocol):
    """What the table reads of a lease, whatever its kind."""

    @property
    def kind(self) -> str: ...
    @property
    def key(self) -> Hashable: ...
    @property
    def worker(self) -> str: ...
    @property
    def deadline_s(self) -> float: ...
    @property
    def prompt(self) -> PromptId: ...
    @property
    def beside(self) -> bool:
        """Whether it takes no slot of a training group."""

    @property
    def suspect(self) -> bool:
        """Whether its prompt comes under quarantine when its worker dies."""


class LeaseKind(Protocol):
    """One kind of lease: what waits, and what the end of a lease means.

    Any: each kind is handed its own leases only.
    """

    def waiting(self) -> Iterable[int]:
        """What may be leased now, the first one first; nothing where there is no capacity."""

    def prompt_of(self, waiting: int) -> PromptId:
        """The prompt of something that waits."""

    def grant(self, waiting: int, worker: str, deadline_s: float) -> Any:
        """The lease of something that waits, which waits no longer."""

    def give_back(self, leases: Sequence[Any], expired: bool) -> None:
        """The leases are void, and what they were for waits again. expired: by their deadline, else their
        worker is gone."""

    def broken(self, lease: Any, workers: tuple[str, ...], poison: bool) -> Any:
        """The worker of a lease has died; the value to report about that.

        `workers`: see `Break`. poison: the lease is void, and what it was for is not leased again. Otherwise
        `give_back` follows.
        """


class BesideKind(LeaseKind, Protocol):
    """A kind that is also leased beside the others. Its leases that are beside are never suspect."""

    def waiting_beside(self) -> Iterable[int]:
        """What is to be leased so, the first one first."""

    def affordable(self) -> bool:
        """Whether the first of them may be leased now."""


class LeaseTable:
    """Times are seconds on the caller's clock. A lease lasts `lease_s` from its grant or its last renewal.

    kinds: `HeldLease.kind` to the kind, in the order in which they are asked.
    """

    def __init__(self, lease_s: float, quarantine: Quarantine) -> None:
        self.lease_s = lease_s
        self.quarantine = quarantine
        self.kinds: dict[str, LeaseKind] = {}
        self._beside: dict[str, BesideKind] = {}
        """The kinds that are also leased beside the others; the first one has the next turn."""
        self._held: dict[Hashable, HeldLease] = {}
        self._until_s: dict[Hashable, float] = {}
        self._of_worker: dict[str, dict[Hashable, None]] = {}
        self._only: dict[str, Hashable] = {}
        """Worker → its lease that was granted while it held nothing, until it gets another one."""
        self._expiry_s = inf
        """No lease expires before this."""

    def add(self, name: str, kind: LeaseKind) -> None:
        """Serves `kind` ahead of the kinds that are there."""
        self.kinds = {name: kind, **self.kinds}

    def add_beside(self, name: str, kind: BesideKind) -> None:
        """The same, and `lease_beside` serves it in its turn."""
        self.add(name, kind)
        self._beside[name] = kind

    def lease(self, worker: str, wanted: int, now_s: float, holds_other_leases: bool = False) -> list[Any]:
        """Up to `wanted` leases; a prompt under quarantine only alone.

        holds_other_leases: the worker says that it works on something, perhaps for a lease that this table
        does not know.
        """
        leases: list[Any] = []
        while len(leases) < wanted and not self.holds_quarantined(worker):
            alone = not holds_other_leases and worker not in self._of_worker
            found = self._next(alone)
            if found is None:
                break
            kind, waiting = found
            lease = kind.grant(waiting, worker, now_s + self.lease_s)
            self._hold(lease, alone)
            leases.append(lease)
        return leases

    def lease_beside(self, worker: str, now_s: float) -> list[Any]:
        """At most one lease beside the others; none to a worker that has one.

        The kinds that have something to lease so take turns. One whose turn it is and that cannot afford it
        yet is waited for, since cheaper answers of another kind would spend for ever what it needs.

        Nor does any worker get one while a prompt under quarantine waits or is in its hands: the worker that
        is to have such a prompt has to run empty, and has nothing else then.
        """
        if self.holds_quarantined(worker) or self._quarantined_waits():
            return []
        found = self._next_beside()
        if found is None or any(lease.beside for lease in self.of_worker(worker)):
            return []
        name, waiting = found
        kind = self._beside.pop(name)
        self._beside[name] = kind
        lease = kind.grant(waiting, worker, now_s + self.lease_s)
        self._hold(lease, alone=False)
        return [lease]

    def something_waits(self) -> bool:
        """Whether there is anything to lease for anybody."""
        waits = any(True for kind in self.kinds.values() for _ in kind.waiting())
        return waits or self._next_beside() is not None

    def get(self, key: Hashable) -> Any:
        """The current lease with this key; None if it is void."""
        return self._held.get(key)

    def of_worker(self, worker: str) -> list[Any]:
        """The worker's leases in the order in which they were granted."""
        return [self._held[key] for key in self._of_worker.get(worker, ())]

    def workers(self) -> list[str]:
        """The workers that hold leases, sorted."""
        return sorted(self._of_worker)

    def holds_quarantined(self, worker: str) -> bool:
        """Whether the worker holds a prompt under quarantine, so that it is to get nothing else."""
        return bool(self.quarantine) and any(map(self._quarantined, self.of_worker(worker)))

    def renew(self, worker: str, keys: Iterable[Any], now_s: float) -> list[Any]:
        """Extends the worker's leases by lease_s.

        Returns the keys that are not its own any more: their work can be dropped.
        """
        lost = []
        for key in keys:
            lease = self._held.get(key)
            if lease is not None and lease.worker == worker:
                self._until_s[key] = now_s + self.lease_s
            else:
                lost.append(key)
        return lost

    def release(self, key: Hashable) -> None:
        """The lease is over; one that is void already is no error."""
        lease = self._held.pop(key, None)
        if lease is None:
            return
        del self._until_s[key]
        held = self._of_worker[lease.worker]
        del held[key]
        if self._only.get(lease.worker) == key:
            del self._only[lease.worker]
        if not held:
            del self._of_worker[lease.worker]

    def survived(self, lease: HeldLease) -> None:
        """The lease is over, and its worker lives: the prompt leaves the quarantine."""
        self.release(lease.key)
        if self.quarantine:
            self.quarantine.release(lease.prompt)

    def expire(self, now_s: float) -> list[Any]:
        """Gives back every lease that has passed its deadline; returns their keys.

        Most calls look at no lease: a renewal moves a lease's end away from the bound, and the bound follows
        when it is reached.
        """
        if now_s < self._expiry_s:
            return []
        keys = [key for key, until_s in self._until_s.items() if until_s <= now_s]
        self._give_back([self._held[key] for key in keys], expired=True)
        self._expiry_s = min(self._until_s.values(), default=inf)
        return keys

    def worker_left(self, worker: str) -> list[Any]:
        """The worker drained, or was ended for a reason that no prompt has.

        Gives back its leases; returns their keys.
        """
        held = self.of_worker(worker)
        self._give_back(held, expired=False)
        return [lease.key for lease in held]

    def worker_died(self, worker: str) -> list[Any]:
        """Gives back the worker's leases under quarantine, or gives them up as poison.

        Returns what the kinds say, a value per lease.
        """
        held = self.of_worker(worker)
        blamed = [lease for lease in held if lease.suspect]
        alone = len(held) == len(blamed) == 1 and self._only.get(worker) == held[0].key
        self.quarantine.admit(lease.prompt for lease in blamed)
        if alone:
            self.quarantine.blame(held[0].prompt, worker)
        said = []
        given_back = []
        for lease in held:
            poison = alone and self.quarantine.is_poison(lease.prompt)
            said.append(self.kinds[lease.kind].broken(lease, self.quarantine.workers(lease.prompt), poison))
            if poison:
                self.release(lease.key)
            else:
                given_back.append(lease)
        self._give_back(given_back, expired=False)
        return said

    # ---- inside

    def _next(self, alone: bool) -> tuple[LeaseKind, int] | None:
        """The kind and what of it a worker may have now; None if nothing waits, or if the worker has to run
        empty first."""
        for kind in self.kinds.values():
            for waiting in kind.waiting():
                if alone or not self.quarantine or kind.prompt_of(waiting) not in self.quarantine:
                    return kind, waiting
                if not any(map(self._quarantined, self._held.values())):
                    return None
        return None

    def _next_beside(self) -> tuple[str, int] | None:
        """The kind whose turn it is and what of it is next; None if there is nothing, or if it has to
        wait."""
        for name, kind in self._beside.items():
            for waiting in islice(kind.waiting_beside(), 1):
                return (name, waiting) if kind.affordable() else None
        return None

    def _quarantined(self, lease: HeldLease) -> bool:
        return lease.suspect and lease.prompt in self.quarantine

    def _quarantined_waits(self) -> bool:
        return bool(self.quarantine) and any(
            kind.prompt_of(waiting) in self.quarantine
            for kind in self.kinds.values()
            for waiting in kind.waiting()
        )

    def _hold(self, lease: HeldLease, alone: bool) -> None:
        worker = lease.worker
        key = lease.key
        if alone:
            self._only[worker] = key
        else:
            self._only.pop(worker, None)
        self._held[key] = lease
        self._until_s[key] = lease.deadline_s
        self._of_worker.setdefault(worker, {})[key] = None
        self._expiry_s = min(self._expiry_s, lease.deadline_s)

    def _give_back(self, leases: Sequence[HeldLease], expired: bool) -> None:
        for lease in leases:
            self.release(lease.key)
        for name, kind in self.kinds.items():
            given_back = [lease for lease in leases if lease.kind == name]
            if given_back:
                kind.give_back(given_back, expired)
