"""Rules between settings of the method: batches, learner, evaluation."""

import datetime
import math

from dynalign.configs.errors import Mistake
from dynalign.configs.rule_table import RuleTable
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.capability import LEAST_ITEMS, LEAST_TOKENS, SHARE
from dynalign.configs.user_paths import path_rule

RULES = RuleTable()


@RULES.reading("date")
def date_is_a_day_of_the_calendar(settings: RunSettings) -> Mistake | None:
    if settings.date is None:
        return None
    try:
        datetime.date.fromisoformat(settings.date)
    except ValueError:
        return Mistake(
            "date", settings.date, "is no day of the calendar", "write year, month and day, like 2026-01-31"
        )
    return None


@RULES.reading("learner.token_budget", "prompts.max_tokens", "rollout.max_completion_tokens")
def token_budget_at_least_longest_sequence(settings: RunSettings) -> Mistake | None:
    prompt = settings.prompts.max_tokens
    completion = settings.rollout.max_completion_tokens
    budget = settings.learner.token_budget
    if budget >= prompt + completion:
        return None
    why = (
        f"a row must hold prompts.max_tokens + rollout.max_completion_tokens = {prompt} + {completion} tokens"
    )
    return Mistake(
        "learner.token_budget", budget, why, f"set learner.token_budget={prompt + completion} or more"
    )


@RULES.reading("algorithm.minibatches", "rollout.prompts_per_step")
def minibatches_at_most_prompts_per_step(settings: RunSettings) -> Mistake | None:
    minibatches = settings.algorithm.minibatches
    prompts = settings.rollout.prompts_per_step
    if minibatches <= prompts:
        return None
    why = f"a step has rollout.prompts_per_step={prompts} groups, and a group is not divided"
    return Mistake("algorithm.minibatches", minibatches, why, f"set algorithm.minibatches={prompts} or fewer")


@RULES.reading("learner.ranks", "rollout.prompts_per_step", "rollout.group_size")
def ranks_at_most_candidates_per_step(settings: RunSettings) -> Mistake | None:
    prompts = settings.rollout.prompts_per_step
    group = settings.rollout.group_size
    ranks = settings.learner.ranks
    if ranks <= prompts * group:
        return None
    why = f"a step has {prompts} x {group} = {prompts * group} candidates, so some ranks would have none"
    return Mistake(
        "learner.ranks",
        ranks,
        why,
        f"set learner.ranks={prompts * group} or fewer, or rollout.prompts_per_step higher",
    )


@RULES.reading("learner.warmup_steps", "steps")
def warmup_steps_at_most_steps(settings: RunSettings) -> Mistake | None:
    warmup = settings.learner.warmup_steps
    if warmup <= settings.steps:
        return None
    why = f"the run has {settings.steps} steps, so the peak learning rate is never reached"
    return Mistake("learner.warmup_steps", warmup, why, f"set learner.warmup_steps={settings.steps} or fewer")


@RULES.reading("rollout.gap_probes", "rollout.group_size")
def gap_probes_at_most_group_size(settings: RunSettings) -> Mistake | None:
    probes = settings.rollout.gap_probes
    group = settings.rollout.group_size
    if probes <= group:
        return None
    return Mistake(
        "rollout.gap_probes",
        probes,
        f"a group has {group} candidates",
        f"set rollout.gap_probes={group} or fewer",
    )


@RULES.reading("algorithm.system_prompt", "algorithm.context_taper")
def taper_needs_two_contexts(settings: RunSettings) -> Mistake | None:
    if not settings.algorithm.context_taper or settings.algorithm.system_prompt == "left_out":
        return None
    why = "algorithm.system_prompt=kept learns in the context that sampled, so there is no gap to taper"
    remedy = "set algorithm.context_taper=false, or algorithm.system_prompt=left_out"
    return Mistake("algorithm.context_taper", True, why, remedy)


@RULES.reading("algorithm.system_prompt", "algorithm.distill_coef")
def distillation_needs_two_contexts(settings: RunSettings) -> Mistake | None:
    coefficient = settings.algorithm.distill_coef
    if coefficient == 0 or settings.algorithm.system_prompt == "left_out":
        return None
    why = "algorithm.system_prompt=kept learns in the context that sampled, so the teacher is the pupil"
    remedy = "set algorithm.distill_coef=0, or algorithm.system_prompt=left_out"
    return Mistake("algorithm.distill_coef", coefficient, why, remedy)


@RULES.reading("learner.lora.targets")
def lora_targets_present_and_distinct(settings: RunSettings) -> Mistake | None:
    lora = settings.learner.lora
    if lora is None or (lora.targets and len(set(lora.targets)) == len(lora.targets)):
        return None
    why = "names a layer twice" if lora.targets else "names no layer, so there is nothing to train"
    return Mistake(
        "learner.lora.targets", list(lora.targets), why, "name each linear layer once, as in [q_proj, v_proj]"
    )


@RULES.reading("convergence.window", "convergence.min_delta", "heldout.prompts")
def convergence_needs_heldout_prompts(settings: RunSettings) -> Mistake | None:
    if settings.convergence is None or settings.heldout.prompts > 0:
        return None
    return Mistake(
        "convergence",
        None,
        "needs evaluations, and heldout.prompts=0 switches them off",
        "set heldout.prompts, or convergence=null",
    )


@RULES.reading("convergence.window", "heldout.prompts", "heldout.every_steps", "steps")
def convergence_window_at_most_evaluations(settings: RunSettings) -> Mistake | None:
    if settings.convergence is None or settings.heldout.prompts == 0:
        return None
    # One before step 1, one every `every_steps`, and one after the last step.
    evaluations = 1 + math.ceil(settings.steps / settings.heldout.every_steps)
    if settings.convergence.window <= evaluations:
        return None
    why = f"{settings.steps} steps have {evaluations} evaluations, so the window is never full"
    remedy = (
        f"set convergence.window={evaluations} or fewer, or heldout.every_steps lower"
        if evaluations > 1
        else "set convergence=null"
    )
    return Mistake("convergence.window", settings.convergence.window, why, remedy)


@RULES.reading("capability.items")
def capability_has_enough_items(settings: RunSettings) -> Mistake | None:
    items = settings.capability.items
    if items == 0 or items >= LEAST_ITEMS:
        return None
    why = f"fewer than {LEAST_ITEMS} items tell no loss from chance"
    return Mistake("capability.items", items, why, f"set capability.items={LEAST_ITEMS} or more, or 0")


@RULES.reading("capability.every_steps", "capability.items", "steps")
def capability_has_a_point_before_the_end(settings: RunSettings) -> Mistake | None:
    every = settings.capability.every_steps
    if settings.capability.items == 0 or every < settings.steps:
        return None
    why = f"the run ends with step {settings.steps}, before the first point after the initial policy's"
    remedy = "set capability.every_steps lower than steps, or capability.items=0"
    return Mistake("capability.every_steps", every, why, remedy)


@RULES.reading(
    "capability.every_steps",
    "capability.items",
    "rollout.prompts_per_step",
    "rollout.group_size",
    "rollout.max_completion_tokens",
    "placement.mode",
)
def capability_items_fit_into_their_steps(settings: RunSettings) -> Mistake | None:
    rollout = settings.rollout
    most = SHARE * rollout.prompts_per_step * rollout.group_size * rollout.max_completion_tokens
    every = settings.capability.every_steps
    needed = math.ceil(LEAST_ITEMS * LEAST_TOKENS / most)
    waits = settings.placement.mode == "shared"
    if settings.capability.items == 0 or waits or every >= needed:
        return None
    why = (
        f"{SHARE:.0%} of a step's completion tokens are at most {most:.0f}, so {LEAST_ITEMS} answers take "
        f"{needed} steps at the least"
    )
    remedy = f"set capability.every_steps={needed} or more, or capability.items=0"
    return Mistake("capability.every_steps", every, why, remedy)


@RULES.reading("capability.suite", "capability.data", "capability.items")
def capability_suite_has_its_data(settings: RunSettings) -> Mistake | None:
    probe = settings.capability
    if probe.items == 0 or probe.suite == "quick" or probe.data is not None:
        return None
    why = "its items do not come with dynalign, and a run fetches none"
    remedy = "set capability.data to a folder with a file per task, or capability.suite=quick"
    return Mistake("capability.suite", probe.suite, why, remedy)


@RULES.reading("capability.data")
def capability_data_is_a_folder(settings: RunSettings) -> Mistake | None:
    data = settings.capability.data
    broken = None if data is None else path_rule(data)
    return None if broken is None else Mistake("capability.data", data, *broken)


@RULES.reading("heldout.waits", "placement.mode")
def evaluation_waits_where_engines_sleep(settings: RunSettings) -> Mistake | None:
    if settings.heldout.waits or settings.placement.mode == "separate":
        return None
    why = "with placement.mode=shared the engines sleep while the learner steps, and answers would be cut off"
    return Mistake("heldout.waits", False, why, "set heldout.waits=true, or placement.mode=separate")
