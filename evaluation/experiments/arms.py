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
    counted: bool = False
    """Whether functions stand in for the judges, and the value of `verifiable_value.py` for the third one."""

    def arm(self, name: str) -> Arm:
        """The arm of a name. Raises KeyError."""
        found = {each.name: each for each in self.arms}
        return found[name]

    @property
    def asks_third_judge(self) -> bool:
        """Whether a judge that trained no arm scores all answers, once the runs have ended."""
        return "judged" in (self.primary, *self.secondary)

    @property
    def plants_bias(self) -> bool:
        """Whether the arms' judges are given answers with a planted bias, once the runs have ended."""
        return "bias_lift" in self.secondary

    @property
    def compared(self) -> tuple[Arm, ...]:
        """All arms but the baseline."""
        return tuple(arm for arm in self.arms if arm.name != self.baseline)


SMALL: Changes = (
    ("steps", 2),
    ("rollout.prompts_per_step", 2),
    ("rollout.group_size", 4),
    ("rollout.groups_in_flight", 2),
    ("rollout.max_completion_tokens", 16),
    ("rollout.dtype", "float32"),
    ("rollout.gap_probes", 0),
    ("rollout.mismatch_fraction", 0.0),
    ("judge.noise_fraction", 0.0),
    ("learner.precision", "float32"),
    ("algorithm.max_refill", 1.0),
    ("heldout.prompts", 4),
    ("heldout.every_steps", 2),
    ("heldout.prompted", False),
    ("checkpoint.every_steps", 2),
    ("checkpoint.keep_last", 1),
    ("placement.object_store_gib", 2.0),
    ("tensorboard", False),
)
"""What `--small` sets, for 15 minutes on two slow cores (`time_estimate.py`). There a start takes longer than
the two steps: more steps would show more, and more arms would take more starts. float32, since a core
without instructions for bfloat16 is several times slower in it. As many groups without signal are replaced
as a step has: a reward that is nearly always 0 would else take minutes a step."""


def listed_names(arms: Sequence[Arm]) -> str:
    """Their names, for a message."""
    return ", ".join(arm.name for arm in arms)
