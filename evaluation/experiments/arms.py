"""What an experiment declares: its arms, whom they are compared with, and by what."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Changes = tuple[tuple[str, object], ...]
"""Dotted path of a setting → value, in the order in which they are written."""


@dataclass(frozen=True)
class Arm:
    """One way to train: an ordinary run with a few settings of its own, for every seed.

    Example: `Arm("samples-g4", "G = 4 at equal samples", (("rollout.group_size", 4),), family="samples")`.
    """

    name: str
    """Short, of letters, digits and `-`: the run of seed 3 is `samples-g4-s3`."""
    title: str
    """What it is, in a report."""
    changes: Changes
    """The settings in which it differs from the given ones."""
    family: str = ""
    """Arms that one conclusion puts in order, such as those with equal samples."""
    rank: float = 0.0
    """Its cost among arms of other families; the first of two that are no worse is the cheaper one."""
    small: bool = True
    """Whether `--small` keeps it."""

    def overrides(self) -> list[str]:
        """The changes as the command line of `train` takes them."""
        return [f"{path}={json.dumps(value, ensure_ascii=False)}" for path, value in self.changes]

    def words(self) -> str:
        """The changes as a reader sees them; `as given` for none."""
        return " ".join(self.overrides()) or "as given"


@dataclass(frozen=True)
class Design:
    """A question, and the arms that answer it.

    Example: `Design("staleness", "How old …?", arms, "k0", primary="heldout", secondary=("step_s",))`.
    """

    experiment: str
    """Its name, as the command takes it."""
    question: str
    """What it asks, in one sentence."""
    arms: tuple[Arm, ...]
    """In the order in which a report shows them. Of arms that are no worse, the first one is the cheapest."""
    baseline: str
    """The arm that the others are compared with."""
    primary: str
    """The measure that the conclusion stands on."""
    secondary: tuple[str, ...]
    """Measures that are reported beside it."""
    choose: Literal["cheapest", "fastest", "best"] = "best"
    """Which arm the conclusion names: of each family the first one that is no worse, of all that are no worse
    the one with the shortest step, or whichever is better."""
    small: Changes = ()
    """What `--small` sets, beside `SMALL`."""
    needs: Changes = ()
    """What every arm has, because the experiment measures it."""

    def arm(self, name: str) -> Arm:
        """The arm of a name. Raises KeyError."""
        found = {each.name: each for each in self.arms}
        return found[name]

    @property
    def asks_third_judge(self) -> bool:
        """Whether a judge that trained no arm scores all answers, once the runs have ended."""
        return "judged" in (self.primary, *self.secondary)

    @property
    def compared(self) -> tuple[Arm, ...]:
        """All arms but the baseline."""
        return tuple(arm for arm in self.arms if arm.name != self.baseline)


SMALL: Changes = (
    ("steps", 3),
    ("heldout.prompts", 8),
    ("heldout.every_steps", 3),
    ("checkpoint.every_steps", 3),
    ("checkpoint.keep_last", 1),
    ("tensorboard", False),
)
"""What `--small` sets. On two cores starting a run takes longer than its three steps: more steps would show
more, and more arms would take more starts."""


def listed_names(arms: Sequence[Arm]) -> str:
    """Their names, for a message."""
    return ", ".join(arm.name for arm in arms)
