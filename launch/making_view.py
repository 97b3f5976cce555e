"""How far a set of prompts is, on standard error: one line that is written over, or now and then a line."""

import sys
import time
from collections.abc import Callable, Mapping

from dynalign.dataset.board import Board
from dynalign.endpoint.tally import Tallies, Tally

ON_A_TERMINAL_S = 0.5
IN_A_LOG_S = 10.0


class MakingView:
    """The live line of one command. say: takes a line; None for standard error."""

    def __init__(
        self,
        board: Board,
        accounts: Mapping[str, Tallies],
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """accounts: name of a model → what it was asked."""
        self._board = board
        self._accounts = accounts
        self._clock = clock
        self._began_s = clock()
        self._is_terminal = say is None and sys.stderr.isatty()
        self._say = say or self._write
        self._next_s = self._began_s + self._every_s

    @property
    def _every_s(self) -> float:
        return ON_A_TERMINAL_S if self._is_terminal else IN_A_LOG_S

    def moved(self) -> None:
        """Something has moved: says so if it is time."""
        if self._clock() >= self._next_s:
            self._say(self.line())
            self._next_s = self._clock() + self._every_s

    def end(self) -> None:
        """Leaves the line that was written over."""
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")

    def line(self) -> str:
        """Items by state, what was spent, the rate, and the time that is left."""
        counts = self._board.counts()
        wanted = self._board.plan.settings.count
        passed_s = self._clock() - self._began_s
        parts = [f"{counts.accepted:,} of {wanted:,} accepted"]
        parts += [
            f"{sum(each.values()):,} {name}"
            for name, each in (("rejected", counts.rejected), ("failed", counts.failed))
        ]
        parts += [f"{number:,} at {agent}" for agent, number in sorted(counts.open.items())]
        if counts.waiting:
            parts.append(f"{counts.waiting:,} waiting for their turn")
        total = spent(self._accounts)
        parts.append(f"{total.prompt_tokens + total.completion_tokens:,} tokens")
        if total.cost:
            parts.append(f"cost {total.cost:.4g}")
        let_through = counts.accepted + counts.waiting
        if let_through and passed_s > 0 and total.answered:
            rate = let_through / passed_s
            parts.append(f"{60 * rate:.0f} a minute")
            parts.append(f"about {duration((wanted - let_through) / rate)} left")
        return ", ".join(parts)

    def _write(self, line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{line}" if self._is_terminal else f"{line}\n")
        sys.stderr.flush()


def spent(accounts: Mapping[str, Tallies]) -> Tally:
    """The sum over all models."""
    total = Tally()
    for account in accounts.values():
        for name, value in vars(account.total()).items():
            setattr(total, name, vars(total)[name] + value)
    return total


def duration(seconds: float) -> str:
    """Whole minutes and seconds for people: `2 h 05 min`, `3 min`, `40 s`."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min" if whole >= 60 else f"{whole} s"
