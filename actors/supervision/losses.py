"""Deaths of watched actors: counted, written to the run's events, and held against a budget of restarts."""

from collections import Counter
from collections.abc import Callable

from dynalign.actors.supervision.deaths import Death
from dynalign.actors.supervision.restart_budget import RestartBudget
from dynalign.actors.supervision.watched import AnyWatched
from dynalign.configs.sections.supervision import SupervisionSettings
from dynalign.run_folder.events import EventLog


class Losses:
    """settings: the budget, of each kind by itself. clock: seconds, monotonic. `restarts` counts deaths by
    `kind/cause`."""

    def __init__(self, settings: SupervisionSettings, events: EventLog, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._events = events
        self._clock = clock
        self._budget = RestartBudget(settings.restarts, settings.window_s)
        self.restarts: Counter[str] = Counter()

    def lost(self, watched: AnyWatched, why: Death) -> str | None:
        """Counts a death, and says from when on the actor may be created again.

        Returns why it is not to be created again where its budget is used up, None otherwise.
        """
        now_s = self._clock()
        self.restarts[f"{watched.kind}/{why.cause}"] += 1
        self._events.write(watched.kind, watched.kind, "died", why.cause, why.detail)
        watched.died_s = now_s if watched.died_s is None else watched.died_s
        delay_s = self._budget.spend(watched.kind, now_s)
        if delay_s is None:
            often = f"{self._settings.restarts + 1} times in {self._settings.window_s:g} s"
            return f"the {watched.kind} ended {often}, the last time by {why.detail}"
        watched.not_before_s = now_s + delay_s
        return None

    def recovered(self, watched: AnyWatched) -> None:
        """Writes that it serves, if it was gone."""
        if watched.died_s is not None:
            lost_s = self._clock() - watched.died_s
            self._events.write(watched.kind, watched.kind, "recovered", "", "serves", lost_s)
            watched.died_s = None
