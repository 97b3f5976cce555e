"""What happens to the processes of a random history, and when."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal

from tests.worlds.virtual_time import NOBODY, Process

What = Literal["dies", "dies at a change of a file", "hangs", "power cut"]

_CALLBACKS = {"worker": 400, "ledger": 300, "coordinator": 150, "learner": 30, "driver": 150}
"""Kind of process to the callbacks of its kind within which the next misfortune comes."""
_CHANGES = {"worker": 12, "ledger": 6, "coordinator": 25, "learner": 2, "driver": 8}
"""The same in changes of the file system."""


@dataclass
class Misfortune:
    """The next one: the `left`-th callback, or change of a file, of a process of `kind`."""

    kind: str
    what: What
    left: int


class Chaos:
    """The `Fate` of every process. die, hang: what a process does then. cut_power: everything dies at once.
    tell: takes what happened."""

    def __init__(
        self,
        random: Random,
        misfortunes: int,
        die: Callable[[Process], None],
        hang: Callable[[Process], None],
        cut_power: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        self._random = random
        self._left = misfortunes
        self._die = die
        self._hang = hang
        self._cut_power = cut_power
        self._tell = tell
        self._next: Misfortune | None = None
        self._draw()

    def before_callback(self, process: Process) -> None:
        coming = self._next
        if coming is not None and coming.what != "dies at a change of a file":
            self._count(coming, process)

    def before_change(self, process: Process) -> None:
        coming = self._next
        if coming is not None and coming.what == "dies at a change of a file":
            self._count(coming, process)

    def calm(self) -> None:
        """Nothing more happens."""
        self._next = None
        self._left = 0

    def _count(self, coming: Misfortune, process: Process) -> None:
        if process.kind != coming.kind or process.condemned:
            return
        coming.left -= 1
        if coming.left > 0:
            return
        self._tell(f"{process.name} {coming.what}")
        self._draw()
        happens = {"hangs": partial(self._hang, process), "power cut": self._cut_power}
        NOBODY.copy().run(happens.get(coming.what, partial(self._die, process)))

    def _draw(self) -> None:
        if self._left == 0:
            self._next = None
            return
        self._left -= 1
        kind = self._random.choice(list(_CALLBACKS))
        whats: list[What] = ["dies", "dies", "dies at a change of a file", "hangs"]
        if kind == "driver":
            whats.append("power cut")
        what = self._random.choice(whats)
        most = (_CHANGES if what == "dies at a change of a file" else _CALLBACKS)[kind]
        soon = self._random.random() < 0.3  # two at once, or a death during a recovery
        self._next = Misfortune(kind, what, self._random.randint(1, max(1, most // (8 if soon else 1))))
