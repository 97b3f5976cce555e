"""One of the run's core actors, as the supervision holds it: created, watched, ended, created again."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ray.exceptions import RayError

from dynalign.actors.remote import Call, Calls
from dynalign.actors.supervision.deaths import Death
from dynalign.actors.supervision.liveness import Liveness
from dynalign.run_folder.events import Kind

Handle = TypeVar("Handle")
Answer = TypeVar("Answer")
Status = TypeVar("Status")


class Watched(Generic[Handle, Answer, Status]):
    """The ledger, the coordinator, or all ranks of the learner, which live and die together.

    kind: what it is, in events and messages. clock: seconds, monotonic.
    """

    def __init__(self, kind: Kind, calls: Calls, clock: Callable[[], float]) -> None:
        self.kind = kind
        self._calls = calls
        self._clock = clock
        self.actors: tuple[Handle, ...] = ()
        self.call: Call[Answer] | None = None
        self.liveness: Liveness[Status] | None = None
        self.since_s = 0.0
        self.not_before_s = 0.0
        self.died_s: float | None = None

    @property
    def actor(self) -> Handle | None:
        """The one actor, None while there is none."""
        return self.actors[0] if self.actors else None

    def is_due(self) -> bool:
        """Whether there is none, and one may be created now."""
        return not self.actors and self._clock() >= self.not_before_s

    def hold(self, *actors: Handle, call: Call[Answer] | None = None) -> None:
        """Begins to watch actors that were just created. call: the long call that they work on."""
        self.actors = actors
        self.call = call
        self.liveness = None
        self.since_s = self._clock()

    def watch(self, ask: Callable[[], Call[Status]]) -> Liveness[Status]:
        """Their signs of life, from now on."""
        if self.liveness is None:
            self.liveness = Liveness(ask, self._calls, self._clock)
        return self.liveness

    def hung(self, silence_s: float) -> Death | None:
        """Whether it has not answered for longer than `silence_s` seconds."""
        silent_s = 0.0 if self.liveness is None else self.liveness.silent_s
        return Death("hung", f"no answer for {silence_s:g} s") if silent_s > silence_s else None

    def ask_once(self, ask: Callable[[], Call[Status]], wait_s: float = 5.0) -> Status | None:
        """An answer within `wait_s` seconds; None from one that is gone, or gives none."""
        call = ask()
        self._calls.wait([call], wait_s)
        try:
            return self._calls.answer(call) if self._calls.ended(call) else None
        except RayError:
            return None

    def end(self) -> None:
        """Ends the actors with their children."""
        for actor in self.actors:
            self._calls.kill(actor)
        self.actors = ()
        self.call = None
        self.liveness = None


AnyWatched = Watched[Any, Any, Any]
