"""The declared plan of an experiment: what is run, what is compared, and what it can see; with an identity.

A plan is written before the first run starts. What it declares may not change afterwards: an experiment whose
arms or measures follow its results shows nothing.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from dynalign.configs.errors import Mistake, RecordError
from dynalign.evaluation.experiments.arms import Arm, Design
from dynalign.evaluation.statistics.crossed import Components, smallest_visible

FORMAT = "dynalign.experiment/1"
OWN = ("name", "runs", "seed", "date", "resume", "log_level", "tensorboard")
"""Settings that belong to a single run, or that change nothing of what is measured."""
OPERATION = ("deadlines.", "metrics.", "supervision.", "checkpoint.")
"""Sections of which no setting changes what is measured."""


@dataclass(frozen=True)
class PlannedArm:
    """An arm with all its settings: `PlannedArm(arm, {"rollout.group_size": 4, …})`."""

    arm: Arm
    """What was declared."""
    settings: Mapping[str, object]
    """Dotted path → value, as JSON has it, of everything that decides what is measured."""


@dataclass(frozen=True)
class Cost:
    """What an experiment costs, as far as it is known.

    Example: `Cost(runs=9, steps=36, tokens=55_296, heldout_tokens=20_736, disk_bytes=2 * 10**9, hours=None)`.
    """

    runs: int
    """Runs, finished ones included."""
    steps: int
    """Optimizer steps of all of them."""
    tokens: int
    """Completion tokens of training, at most."""
    heldout_tokens: int
    """Completion tokens of held-out answers, at most."""
    disk_bytes: int
    """What the runs need of the disk at one time."""
    hours: float | None
    """By the runs that have ended, one after the other; None before the first one has."""


@dataclass(frozen=True)
class ExperimentPlan:
    """All that an experiment declares.

    Example, shortened: `ExperimentPlan(design, "quickstart", arms, (0, 1, 2), 0.25, 8, "2026-11-28", …)`.
    """

    design: Design
    """The question and its arms."""
    config: str
    """The configuration that the arms change, as it was given."""
    arms: tuple[PlannedArm, ...]
    """The arms with their settings."""
    seeds: tuple[int, ...]
    """One run of each arm for each."""
    margin: float
    """The loss, in units of the primary measure, that is still called none."""
    prompts: int
    """Held-out prompts, by which arms are paired."""
    day: str
    """The day that chat templates print in every run."""
    assumed: Components
    """How differences between two arms are taken to vary."""
    assumed_from: str
    """Where these variances come from."""

    @property
    def visible(self) -> float:
        """The smallest difference of the primary measure that the plan can see."""
        tests = max(1, len(self.design.compared))
        return smallest_visible(self.assumed, len(self.seeds), self.prompts, tests)

    def identity(self) -> dict[str, Any]:
        """What may not change once the experiment has begun."""
        design = self.design
        return {
            "experiment": design.experiment,
            "seeds": list(self.seeds),
            "baseline": design.baseline,
            "primary measure": design.primary,
            "secondary measures": list(design.secondary),
            "margin": self.margin,
            "arms": {each.arm.name: dict(each.settings) for each in self.arms},
        }

    @property
    def hash(self) -> str:
        """16 hexadecimal characters of SHA-256 over format and identity."""
        return identity_hash(self.identity())

    def as_json(self, cost: Cost) -> str:
        """`plan.json`."""
        content = {
            "format": FORMAT,
            "hash": self.hash,
            "config": self.config,
            "day": self.day,
            "identity": self.identity(),
            "visible": self.visible,
            "variances": asdict(self.assumed),
            "variances from": self.assumed_from,
            "held-out prompts": self.prompts,
            "cost": asdict(cost),
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def identity_hash(identity: Mapping[str, Any]) -> str:
    """16 hexadecimal characters of SHA-256 over the format and an identity."""
    text = json.dumps([FORMAT, identity], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class KeptPlan:
    """The plan that a folder holds: `KeptPlan("3f…", {"seeds": [0, 1, 2], …}, "2026-11-28", …)`."""

    hash: str
    """Its hash."""
    identity: Mapping[str, Any]
    """What it declares."""
    day: str
    """The day of its runs."""
    variances: Components
    """How differences were taken to vary."""
    variances_from: str
    """Where these came from."""


def read_identity(text: str, origin: str) -> Mapping[str, Any]:
    """What the plan in a file declares. Raises RecordError as `read_plan` does."""
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise RecordError(f"{origin} has format {content['format']!r}, this version reads {FORMAT}")
        identity = content["identity"]
        fits = identity_hash(identity) == content["hash"]
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{origin}: not the plan of an experiment ({error!r})") from error
    if not fits or not isinstance(identity, dict):
        raise RecordError(f"{origin}: its content was changed after it was written")
    return identity


def read_plan(text: str, origin: str) -> KeptPlan:
    """The plan in a file. Raises RecordError for another format, or a content that its hash does not fit."""
    identity = read_identity(text, origin)
    try:
        content = json.loads(text)
        return KeptPlan(
            content["hash"],
            identity,
            str(content["day"]),
            Components(**content["variances"]),
            str(content["variances from"]),
        )
    except (KeyError, TypeError) as error:
        raise RecordError(f"{origin}: not the plan of arms ({error!r})") from error


def plan_changes(before: Mapping[str, Any], now: Mapping[str, Any], remedy: str) -> list[Mistake]:
    """A Mistake for each item that the kept plan declares otherwise."""
    old = dict(_flat(before))
    new = dict(_flat(now))
    mistakes = []
    for path in dict.fromkeys((*old, *new)):
        if old.get(path, _Absent) != new.get(path, _Absent):
            was = json.dumps(old[path], ensure_ascii=False) if path in old else "nothing"
            place = " ".join(path)
            rule = f"the experiment in this folder was begun with {was}"
            mistakes.append(Mistake(place, new.get(path, "nothing"), rule, remedy))
    return mistakes


class _Absent:
    """Stands for an item that a plan does not have."""


def _flat(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, (*path, key))
        else:
            yield (*path, key), value


def compared_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Of all settings of a run, as JSON has them, those that decide what is measured."""
    return {
        path: json.loads(json.dumps(value))
        for path, value in settings.items()
        if path not in OWN and not path.startswith(OPERATION)
    }


def twins(arms: Sequence[PlannedArm]) -> list[Mistake]:
    """A Mistake for each two arms with the same settings."""
    return [
        Mistake(
            f"arm {second.arm.name}", None,
            f"has the same settings as arm {first.arm.name}, so that their difference is noise",
            "leave one of the two out with arms=A,B, or change a setting",
        )
        for first, second in combinations(arms, 2)
        if first.settings == second.settings
    ]  # fmt: skip
