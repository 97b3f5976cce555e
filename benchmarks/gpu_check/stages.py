"""The stages of the check, in order of their worth.

Stages and times are a table, so that the runner decides from it alone what may start.
"""

from dataclasses import dataclass

from dynalign.benchmarks.workload import Device
from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.refusals import did_you_mean


@dataclass(frozen=True)
class Limits:
    """How long a stage may take on one kind of device: `Limits(least_s=60.0, deadline_s=200.0)`."""

    least_s: float
    """With less time than this the stage is not started."""
    deadline_s: float
    """After this it is ended with all that it has started."""


@dataclass(frozen=True)
class Stage:
    """One process of the check.

    Example: `Stage("facts", "facts", "card, driver, versions", Limits(15.0, 90.0), Limits(5.0, 60.0))`.
    """

    name: str
    """How it is called in results and by `--only`."""
    module: str
    """The module of this package whose `measure(site)` it runs."""
    what: str
    """What it proves or measures, for people."""
    gpu: Limits
    """Its times on a GPU: estimates from the starts that were seen on an H200 (docs/performance.md)."""
    cpu: Limits
    """Its times in a dry run, whose length is that of the starts of engines and runs."""

    def limits(self, device: Device) -> Limits:
        """The times on that device."""
        return self.gpu if device == "gpu" else self.cpu


_RUN = Limits(60.0, 600.0)
"""A dry run's stage with one whole run or engine in it: 60 s to 90 s on two idle cores."""

STAGES = (
    Stage(
        "facts",
        "facts",
        "card, driver, versions, free memory, speed of matrix products and copies",
        Limits(20.0, 90.0),
        Limits(5.0, 300.0),
    ),
    Stage(
        "shared-run",
        "shared_run",
        "engine and learner in turn: 6 steps, checkpoint, export, equal log-probabilities after it, "
        "2 more steps; memory beside the plan",
        # Two starts, 24 GB off the GPU and back in each step, a checkpoint of 28 GB written twice and read.
        Limits(150.0, 480.0),
        _RUN,
    ),
    Stage(
        "split-run",
        "split_run",
        "engine and learner at once, by IPC, captured graphs: 6 steps, memory beside the plan, paused share, "
        "wall against the slower side",
        Limits(130.0, 300.0),
        _RUN,
    ),
    Stage(
        "attention",
        "attention",
        "the learner's attention in one call for a row against a call for each part: the same function and "
        "gradient, MFU, and what the GPU waits for the host",
        Limits(45.0, 200.0),
        Limits(30.0, 400.0),
    ),
    Stage(
        "pushed-graphs",
        "pushed_graphs",
        "new weights are in the captured graphs: log-probabilities after a push against transformers",
        Limits(60.0, 240.0),
        _RUN,
    ),
    Stage(
        "replaced-worker",
        "replaced_worker",
        "a worker is killed and replaced beside its learner, and the run goes on",
        Limits(90.0, 300.0),
        _RUN,
    ),
    Stage(
        "generation",
        "ratios",
        "tokens per second by the system against bare vLLM",
        Limits(90.0, 300.0),
        _RUN,
    ),
    Stage(
        "learning",
        "ratios",
        "the learner against plain torch and against padded rows, and its MFU",
        Limits(60.0, 240.0),
        _RUN,
    ),
    Stage("scoring", "ratios", "judgements with and without shared prefixes", Limits(60.0, 200.0), _RUN),
    Stage(
        "weight-sync",
        "ratios",
        "from publishing a version to an engine that has loaded it",
        Limits(60.0, 240.0),
        _RUN,
    ),
    Stage(
        "mismatch",
        "mismatch",
        "engine against learner in bfloat16: log-probabilities and importance ratios",
        Limits(60.0, 180.0),
        _RUN,
    ),
    Stage(
        "two-gpus",
        "two_gpus",
        "engine and learner on a GPU each, by NCCL: 6 steps without a fallback",
        Limits(100.0, 240.0),
        _RUN,
    ),
    Stage(
        "two-ranks",
        "two_ranks",
        "ZeRO 2 and 3 on two ranks against one rank",
        Limits(60.0, 180.0),
        _RUN,
    ),
)


def chosen_stages(only: str | None) -> tuple[Stage, ...]:
    """The stages of a comma-separated list, in the catalog's order; all for None.

    Raises UserError with every unknown name."""
    if only is None:
        return STAGES
    names = [stage.name for stage in STAGES]
    wanted = [name.strip() for name in only.split(",")]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise UserError(
            Mistake("--only", name, "is no stage of the check", _instead(name, names)) for name in unknown
        )
    return tuple(stage for stage in STAGES if stage.name in wanted)


def _instead(name: str, names: list[str]) -> str:
    close = did_you_mean(name, names)
    return f"did you mean {close}?" if close else f"there are: {', '.join(names)}"
