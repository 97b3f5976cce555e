"""The experiments by name: which arms each has, for the settings that it is given.

An arm is a list of settings and nothing else, so that it is an ordinary run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.refusals import did_you_mean
from dynalign.configs.schema import RunSettings
from dynalign.evaluation.experiments.arms import Arm, Changes, Design

GROUP_SIZES = (2, 4, 8, 16)
STALENESS = (0, 1, 2, 4)
_ONE_PROMPT: Changes = (("rollout.prompts_per_step", 1), ("rollout.groups_in_flight", 1))
"""`--small` of an experiment whose arms need more engines or more scores."""
COUNTED = "dynalign.evaluation.experiments.verifiable_value"
"""The module whose functions stand in for the judges of a rubric."""


@dataclass(frozen=True)
class ExperimentRequest:
    """What the user adds to the configuration: `ExperimentRequest(settings, models=("a", "b"))`."""

    settings: RunSettings
    """The settings that all arms begin from."""
    models: tuple[str, ...] = ()
    """`architecture`: the models, the first one is the baseline."""
    stances: tuple[str, ...] = ("asker", "affected", "harm")
    """`judge`: the stances of the panel."""


def design_of(name: str, request: ExperimentRequest) -> Design:
    """The arms of an experiment. Raises UserError for an unknown name, and for what it lacks."""
    if name not in EXPERIMENTS:
        close = did_you_mean(name, EXPERIMENTS)
        there = f"there are: {', '.join(EXPERIMENTS)}, paper"
        remedy = f"did you mean {close}? {there}" if close else there
        raise UserError([Mistake("experiment", name, "there is no such experiment", remedy)])
    return EXPERIMENTS[name](request)


def group_size(request: ExperimentRequest) -> Design:
    """How many candidates a prompt needs, at equal samples and at equal prompts."""
    rollout = request.settings.rollout
    samples = rollout.group_size * rollout.prompts_per_step
    in_flight = rollout.group_size * rollout.groups_in_flight
    base = rollout.group_size
    arms = []
    for size in GROUP_SIZES:
        if size == base:
            arms.append(Arm(f"g{size}", f"G = {size}", (), "at equal samples", size))
            continue
        flight = ("rollout.groups_in_flight", max(1, in_flight // size))
        prompts = ("rollout.prompts_per_step", samples // size)
        if samples % size == 0:
            changes: Changes = (("rollout.group_size", size), prompts, flight)
            few = size < base
            arms.append(Arm(f"samples-g{size}", f"G = {size}", changes, "at equal samples", size, few))
    if base not in GROUP_SIZES:
        arms.append(Arm(f"g{base}", f"G = {base}", (), "at equal samples", base))
    arms.sort(key=lambda arm: arm.rank)
    for size in GROUP_SIZES:
        if size != base:
            flight = ("rollout.groups_in_flight", max(1, in_flight // size))
            title = f"G = {size} with as many prompts"
            changes = (("rollout.group_size", size), flight)
            arms.append(Arm(f"prompts-g{size}", title, changes, "at equal prompts", size, small=False))
    return Design(
        "group-size",
        "How many candidates does a prompt need?",
        tuple(arms),
        f"g{base}",
        "heldout",
        (
            "heldout_area", "reward_variance", "no_signal_fraction", "advantage_error", "step_s",
            "learner_wait_s",
        ),
        choose="cheapest",
    )  # fmt: skip


def staleness(request: ExperimentRequest) -> Design:
    """How old a trained token may be, with and without the correction by recorded log-probabilities."""
    arms = []
    for age in STALENESS:
        for corrected in (False, True):
            name = f"k{age}{'-corrected' if corrected else ''}"
            title = f"age {age}{', corrected' if corrected else ''}"
            small = name in ("k0", "k2")
            changes = (("algorithm.max_staleness", age), ("rollout.record_behaviour", corrected))
            arms.append(Arm(name, title, changes, small=small))
    return Design(
        "staleness",
        "How old may a trained token be, and does the correction by recorded log-probabilities help?",
        tuple(arms),
        "k0",
        "heldout",
        (
            "heldout_area", "step_s", "learner_wait_s", "staleness_mean", "ratio_max",
            "effective_sample_size",
        ),
        choose="fastest",
    )  # fmt: skip


def internalization(request: ExperimentRequest) -> Design:
    """What leaving the system prompt out of the gradient does: the ablation that the paper lacks."""
    left_out: Changes = (("algorithm.system_prompt", "left_out"),)
    arms = (
        Arm("kept", "system prompt kept", (("algorithm.system_prompt", "kept"),)),
        Arm("left-out", "left out", left_out),
        Arm("tapered", "left out, tapered", (*left_out, ("algorithm.context_taper", True)), small=False),
        Arm("distilled", "left out, distilled", (*left_out, ("algorithm.distill_coef", 0.1)), small=False),
    )
    return Design(
        "internalization",
        "Does leaving the system prompt out of the gradient move the value into the weights?",
        arms,
        "kept",
        "heldout",
        ("heldout_prompted", "prompt_gain", "internalization_gap", "gap_change", "kl", "heldout_area"),
        needs=(("heldout.prompted", True),),
        small=(("rollout.gap_probes", 1),),
    )


def judge(request: ExperimentRequest) -> Design:
    """Who should judge: what each judge pushes the policy to, by one judge that trained none."""
    settings = request.settings.judge
    plain: Changes = (("judge.kind", "self"),)
    # Below an adapter the engines hold the initial policy; without one it needs engines of its own.
    held = settings.pool is not None or request.settings.learner.lora is not None
    rollout = request.settings.rollout
    alike = {"engine": rollout.engine, "dtype": rollout.dtype, "engine_threads": rollout.engine_threads}
    pool: Changes = () if held else (("judge.pool", {"engines": 1, **alike}),)
    weighted: Changes = (
        *plain,
        *pool,
        ("judge.probes", ["frozen"]),
        ("judge.probe_fraction", 1.0),
        ("judge.consistency_weight", True),
    )
    arms = [
        Arm("self", "the policy itself", plain),
        Arm("frozen", "the initial policy", (("judge.kind", "frozen"), *pool)),
        Arm("weighted", "itself, weighted by consistency", weighted, small=False),
        Arm(
            "panel",
            "a panel",
            (("judge.kind", "panel"), ("judge.scorer", "sampled"), ("judge.stances", list(request.stances))),
            small=False,
        ),
    ]
    if settings.endpoints:
        models = list(settings.models or settings.endpoints)
        arms.append(Arm("external", "another model", (("judge.kind", "external"), ("judge.models", models))))
    return Design(
        "judge",
        "Who should judge: which judge's reward also rises by another one, and which is gamed?",
        tuple(arms),
        "self",
        "judged",
        (
            "heldout", "reward_rise", "kl", "score_length_correlation_within", "completion_length_mean",
            "unparsed_fraction", "step_s",
        ),
        small=_ONE_PROMPT,
    )  # fmt: skip


def rubric(request: ExperimentRequest) -> Design:
    """One score for the whole value, or one for each aspect put together.

    With `judge.kind=function` the value is the counted one of `verifiable_value.py`, whose judges are fooled
    by a known share."""
    counted = request.settings.judge.kind == "function"
    kinds = (
        ("unified", "one score", "unified", "mean", True),
        ("mean", "mean of the aspects", "factorized", "mean", True),
        ("min", "lowest aspect", "factorized", "min", False),
        ("geometric", "geometric mean", "factorized", "geometric_mean", False),
    )
    arms = []
    for name, title, of, aggregate, small in kinds:
        changes: Changes = (("judge.rubric", of), ("judge.aggregate", aggregate))
        if counted:
            stand_in = of if of == "unified" else f"aspects_{aggregate}"
            changes = (("judge.function", f"{COUNTED}:{stand_in}"),)
        arms.append(Arm(name, title, changes, small=small))
    return Design(
        "rubric",
        "Is the value judged better as a whole or by its aspects?",
        tuple(arms),
        "unified",
        "judged",
        (
            "heldout", "bias_lift", "bias_lift_in_sd", "verbosity_lift", "self_praise_lift", "format_lift",
            "aspect_correlation", "aspect_spread", "score_length_correlation_within",
            "completion_length_mean", "unparsed_fraction", "reward_rise", "step_s",
        ),
        small=_ONE_PROMPT,
        counted=counted,
    )  # fmt: skip


def transfer(request: ExperimentRequest) -> Design:
    """What is gained on trained, held-out and foreign prompts. Each is a set of prompts of the same runs."""
    return Design(
        "transfer",
        "Does what is learned hold for prompts that were held out, and for those of another source?",
        (Arm("trained", "the run", ()),),
        "trained",
        "heldout_gain",
        ("heldout_prompted_gain", "trained_gain", "internalization_gap"),
        needs=(("heldout.prompted", True),),
    )


def architecture(request: ExperimentRequest) -> Design:
    """The same plan over several models. Raises UserError for fewer than two."""
    if len(request.models) < 2:
        rule = "names fewer than two models"
        raise UserError(
            [Mistake("models", None, rule, "write models=A,B: folders, fetched names or hub ids")]
        )
    arms = []
    for number, model in enumerate(request.models, 1):
        short = "".join(each if each.isalnum() else "-" for each in model.rstrip("/").rsplit("/", 1)[-1])
        name = f"m{number}-{short.lower().strip('-')[:32]}"
        arms.append(Arm(name, model.rstrip("/").rsplit("/", 1)[-1], (("model", model),)))
    return Design(
        "architecture",
        "How does the same training go with other models?",
        tuple(arms),
        arms[0].name,
        "judged",
        ("heldout", "heldout_area", "reward_variance", "no_signal_fraction", "internalization_gap", "step_s"),
    )


EXPERIMENTS: Mapping[str, Callable[[ExperimentRequest], Design]] = {
    "group-size": group_size,
    "staleness": staleness,
    "internalization": internalization,
    "judge": judge,
    "rubric": rubric,
    "transfer": transfer,
    "architecture": architecture,
}
"""Name → its design."""
