"""What a storm does to a run, as data: a pure function of the number of kills and the seed."""

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Victim = Literal["worker", "engine", "gateway", "ledger", "coordinator", "learner", "node", "driver"]
How = Literal["dies", "hangs"]
Shape = Literal["alone", "together", "during", "again"]

FORMS: tuple[tuple[Victim, How], ...] = (
    ("worker", "dies"),
    ("worker", "hangs"),
    ("engine", "dies"),
    ("engine", "hangs"),
    ("gateway", "dies"),
    ("gateway", "hangs"),
    ("ledger", "dies"),
    ("ledger", "hangs"),
    ("coordinator", "dies"),
    ("coordinator", "hangs"),
    ("learner", "dies"),
    ("learner", "hangs"),
    ("node", "dies"),
    ("driver", "dies"),
)
"""Everything that can be struck. Each comes once before any comes again, in an order of the seed's."""

SHAPES: tuple[Shape, ...] = ("alone", "together", "during", "again")
"""`alone`: one strike. `together`: two at once. `during`: a second one while the run recovers from the first.
`again`: the same victim twice, perhaps without a commit in between. They take turns as FORMS do."""

LONGEST_PAUSE_S = 3.0
"""Before a round, in seconds: long enough for some steps, so that a strike meets any moment of a step."""

LONGEST_RECOVERY_S = 8.0
"""Before the second strike of `during` and `again`, in seconds: new actors start within this time."""


@dataclass(frozen=True)
class Strike:
    """One kill.

    Example: ``Strike(victim="worker", how="hangs", after_s=0.0, pick=0.71)``
    """

    victim: Victim
    """What is struck. The engine is that of the judges' pool, the gateway the way to their endpoint, the node
    the second one, with everything on it."""
    how: How
    """`dies`: SIGKILL. `hangs`: SIGSTOP, so that the process holds what it has and does not answer."""
    after_s: float
    """Seconds between the strike before it in the round and this one; 0 for the first one."""
    pick: float
    """In [0, 1): which of several victims, as a fraction of their number."""


@dataclass(frozen=True)
class Round:
    """Strikes that the run recovers from as one.

    Example: ``Round(shape="alone", pause_s=1.2, strikes=(Strike("ledger", "dies", 0.0, 0.3),))``
    """

    shape: Shape
    """How the strikes follow each other."""
    pause_s: float
    """Seconds of undisturbed training before the first strike."""
    strikes: tuple[Strike, ...]
    """One or two."""


@dataclass(frozen=True)
class StormPlan:
    """A whole storm.

    Example: ``StormPlan(ranks=2, mirror=False, rounds=(…,))``
    """

    ranks: int
    """Learner ranks: 1 or 2, by the seed."""
    mirror: bool
    """Whether the run copies its checkpoints to a mirror, by the seed."""
    rounds: tuple[Round, ...]
    """In the order of time."""

    @property
    def kills(self) -> int:
        return sum(len(round_.strikes) for round_ in self.rounds)


def storm_plan(kills: int, seed: int) -> StormPlan:
    """The storm of `kills` strikes. The same arguments give the same plan."""
    rng = random.Random(seed)
    ranks = rng.choice((1, 2))
    mirror = rng.choice((False, True))
    forms: list[tuple[Victim, How]] = []
    shapes: list[Shape] = []
    rounds: list[Round] = []
    left = kills
    while left > 0:
        if not shapes:
            shapes = rng.sample(SHAPES, len(SHAPES))
        shape = "alone" if left == 1 else shapes.pop()
        rounds.append(_round(shape, forms, rng))
        left -= len(rounds[-1].strikes)
    return StormPlan(ranks, mirror, tuple(rounds))


def _round(shape: Shape, forms: list[tuple[Victim, How]], rng: random.Random) -> Round:
    pause_s = rng.uniform(0.0, LONGEST_PAUSE_S)
    victim, how = _draw(forms, rng, ())
    strikes = [Strike(victim, how, 0.0, rng.random())]
    if shape == "together":
        # There is one of each, except for the workers: two strikes at once need two victims.
        strikes.append(Strike(*_draw(forms, rng, () if victim == "worker" else (victim,)), 0.0, rng.random()))
    elif shape == "during":
        strikes.append(Strike(*_draw(forms, rng, (victim,)), _while_recovering_s(rng), rng.random()))
    elif shape == "again":
        strikes.append(Strike(victim, "dies", _while_recovering_s(rng), rng.random()))
    return Round(shape, pause_s, tuple(strikes))


def _while_recovering_s(rng: random.Random) -> float:
    return rng.uniform(0.2, LONGEST_RECOVERY_S)


def _draw(
    forms: list[tuple[Victim, How]], rng: random.Random, avoided: Collection[Victim]
) -> tuple[Victim, How]:
    """The next form whose victim is not avoided. `forms` is what is left of the present deal."""
    if all(victim in avoided for victim, _ in forms):
        forms += rng.sample(FORMS, len(FORMS))
    drawn = next(form for form in forms if form[0] not in avoided)
    forms.remove(drawn)
    return drawn
