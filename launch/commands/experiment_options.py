"""What the command line of `dynalign experiment` says, and what it declares before any run is looked at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import load_run
from dynalign.configs.refusals import did_you_mean
from dynalign.configs.schema import RunSettings
from dynalign.evaluation.experiments.arms import SMALL, Arm, Design, listed_names
from dynalign.evaluation.experiments.catalogue import ExperimentRequest, design_of

FEWEST_SEEDS = 3
"""With two, an interval over seeds is thirteen times its standard error wide to each side."""
OWN_KEYS = ("arms", "models", "judged_by", "foreign")
"""Keys of KEY=VALUE that are the experiment's own, and no settings of a run."""


@dataclass(frozen=True)
class ExperimentOptions:
    """As given: `ExperimentOptions("group-size", "quickstart", ("steps=20",), small=True)`."""

    experiment: str
    """Its name."""
    config: str
    """A shipped run, or a YAML file; empty where none was given."""
    settings: tuple[str, ...] = ()
    """KEY=VALUE: settings of every arm, and the experiment's own keys."""
    small: bool = False
    """Whether fewer arms and steps are run."""
    seeds: int = FEWEST_SEEDS
    """Runs of each arm."""
    margin: float = 0.25
    """The loss that is still called none, in points."""
    see: float | None = None
    """The difference that the plan must be able to see; None: the scale."""
    measured: str | None = None
    """Folder of an ended experiment, whose variances the plan takes; None: assumed ones."""
    at_once: int | None = None
    """Most runs at one time; None: as many as the cluster has room for."""
    keep_checkpoints: bool = False
    """Whether checkpoints of finished runs stay."""
    plan: bool = False
    """Whether the plan is all that is printed."""
    out: str | None = None
    """The experiment's folder; None: beside the run folders."""


def with_config(options: ExperimentOptions) -> ExperimentOptions:
    """The same where the first word is KEY=VALUE, or there is none. `paper` has a configuration of its own.

    Raises UserError for another experiment without one."""
    given = options.config or ""
    if "=" in given:
        options = replace(options, config="", settings=(given, *options.settings))
    if options.config:
        return options
    if options.experiment != "paper":
        design_of(options.experiment, ExperimentRequest(_anything(), ("a", "b")))
        remedy = "name a shipped run, such as quickstart, or a YAML file"
        raise UserError([Mistake("CONFIG", None, "is missing", remedy)])
    return replace(options, config="quickstart" if options.small else "paper")


@dataclass(frozen=True)
class Declared:
    """What is declared, before files are examined: `Declared(design, settings, ("steps=4",), None, None)`."""

    design: Design
    """The question, with the arms that are run."""
    settings: RunSettings
    """The settings that all arms begin from."""
    overrides: tuple[str, ...]
    """What every arm has on its command line, before its own changes."""
    foreign: str | None
    """`transfer`: the other source of prompts; None where none was named."""
    judged_by: str | None
    """The third judge: a model, or an endpoint's YAML file; None: the model that the runs begin from."""


def declared(options: ExperimentOptions) -> Declared:
    """The arms of an experiment. Raises UserError with every mistake."""
    own = {key: value for key, equals, value in map(_parted, options.settings) if equals and key in OWN_KEYS}
    given = [each for each in options.settings if _parted(each)[0] not in OWN_KEYS]
    models = _names(own.get("models", ""))
    refused = [
        Mistake(key, None, "belongs to each run of an experiment", remedy)
        for key, remedy in (("name", "choose the folder with --out"), ("runs", "choose it with --out"))
        if any(_parted(each)[0] == key for each in given)
    ]
    if options.experiment == "architecture" and models:
        given.append(f"model={models[0]}")
    small = _overrides(SMALL) if options.small else []
    try:
        first = load_run(options.config, [*small, *given]).settings
    except UserError as error:
        design_of(
            options.experiment, ExperimentRequest(_anything(), models or ("a", "b"))
        )  # its name may be wrong, too
        raise UserError([*refused, *error.mistakes]) from None
    design = _chosen(
        design_of(options.experiment, ExperimentRequest(first, models)), own.get("arms"), options.small
    )
    small += _overrides(design.small) if options.small else []
    overrides = (*small, *given, *_overrides(design.needs))
    refused += _too_few(options, design)
    if refused:
        raise UserError(refused)
    settings = load_run(options.config, overrides).settings
    return Declared(design, settings, overrides, own.get("foreign"), own.get("judged_by"))


def _anything() -> RunSettings:
    """Settings for a design that is only looked for."""
    return RunSettings(name="unnamed", model="unnamed")


def _parted(setting: str) -> tuple[str, str, str]:
    key, equals, value = setting.partition("=")
    return key.strip(), equals, value


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.strip("[]").split(",") if part.strip())


def _overrides(changes: Sequence[tuple[str, object]]) -> list[str]:
    return Arm("", "", tuple(changes)).overrides()


def _chosen(design: Design, names: str | None, small: bool) -> Design:
    """The design with the arms that are run. Raises UserError for unknown names, and fewer than two arms."""
    if names is None:
        kept = tuple(arm for arm in design.arms if arm.small or arm.name == design.baseline)
        return replace(design, arms=kept) if small else design
    chosen = _names(names)
    known = [arm.name for arm in design.arms]
    mistakes = []
    for name in chosen:
        if name not in known:
            close = did_you_mean(name, known)
            there = f"there are: {listed_names(design.arms)}"
            remedy = f"did you mean {close}? {there}" if close else there
            mistakes.append(Mistake("arms", name, f"{design.experiment} has no such arm", remedy))
    arms = tuple(arm for arm in design.arms if arm.name in chosen)
    if not mistakes and len(arms) < min(2, len(design.arms)):
        mistakes.append(Mistake("arms", names, "names fewer than two arms", "name those to compare"))
    if mistakes:
        raise UserError(mistakes)
    baseline = design.baseline if design.baseline in chosen else arms[0].name
    return replace(design, arms=arms, baseline=baseline)


def _too_few(options: ExperimentOptions, design: Design) -> list[Mistake]:
    mistakes = []
    if options.seeds < FEWEST_SEEDS:
        rule = f"needs {FEWEST_SEEDS} or more: fewer show next to nothing of other seeds"
        mistakes.append(Mistake("--seeds", options.seeds, rule, f"leave it out, or give {FEWEST_SEEDS}"))
    if options.margin <= 0:
        rule = "must be above 0: a loss of nothing can never be refuted"
        mistakes.append(Mistake("--margin", options.margin, rule, "give the loss that you would accept"))
    return mistakes
