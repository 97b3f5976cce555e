"""Rules that tie settings to each other. All are checked, all broken ones are reported together.

A rule is one small function in a table with the settings it reads: when one of those was refused already, the rule says nothing,
because what it would judge is not what the user wrote.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dynalign.configs.errors import Mistake
from dynalign.configs.schema import RunSettings

Check = Callable[[RunSettings], Mistake | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """`check` returns the mistake, or None; `reads` are the dotted paths that it looks at."""

    reads: tuple[str, ...]
    check: Check


RULES: list[Rule] = []


def rule(*reads: str) -> Callable[[Check], Check]:
    def enter(check: Check) -> Check:
        RULES.append(Rule(reads, check))
        return check

    return enter


def broken_rules(settings: RunSettings, refused: Collection[str] = ()) -> list[Mistake]:
    """Every broken rule, in the table's order. `refused`: dotted paths whose values are not the user's."""
    judged = (entry.check(settings) for entry in RULES if not set(entry.reads) & set(refused))
    return [mistake for mistake in judged if mistake is not None]


@rule("placement.mode", "algorithm.max_staleness")
def shared_devices_are_synchronous(settings: RunSettings) -> Mistake | None:
    staleness = settings.algorithm.max_staleness
    if settings.placement.mode == "separate" or staleness == 0:
        return None
    why = "with placement.mode=shared the engine sleeps while the learner learns, so no token can be from an older version"
    return Mistake(
        "algorithm.max_staleness", staleness, why, "set algorithm.max_staleness=0, or placement.mode=separate"
    )


@rule("judge.kind", "judge.function")
def a_function_judge_names_its_function(settings: RunSettings) -> Mistake | None:
    if settings.judge.kind != "function" or settings.judge.function is not None:
        return None
    return Mistake(
        "judge.function",
        None,
        "judge.kind=function needs a function",
        "set judge.function=package.module:callable",
    )


@rule("judge.kind", "judge.function")
def only_a_function_judge_has_a_function(settings: RunSettings) -> Mistake | None:
    if settings.judge.kind == "function" or settings.judge.function is None:
        return None
    why = f"judge.kind={settings.judge.kind} never calls it"
    return Mistake(
        "judge.function", settings.judge.function, why, "set judge.kind=function, or judge.function=null"
    )


@rule("judge.function")
def a_function_is_named_by_module_and_callable(settings: RunSettings) -> Mistake | None:
    name = settings.judge.function
    if name is None or re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
        return None
    return Mistake(
        "judge.function",
        name,
        "is not of the form package.module:callable",
        "write a dotted module, a colon, a name",
    )


@rule("judge.samples", "judge.scorer")
def only_sampled_verdicts_are_averaged(settings: RunSettings) -> Mistake | None:
    if settings.judge.samples == 1 or settings.judge.scorer == "sampled":
        return None
    why = "judge.scorer=expected gives the same verdict each time, so there is nothing to average"
    return Mistake(
        "judge.samples", settings.judge.samples, why, "set judge.samples=1, or judge.scorer=sampled"
    )


@rule("judge.aggregate", "judge.rubric")
def only_factorized_scores_are_aggregated(settings: RunSettings) -> Mistake | None:
    if settings.judge.aggregate == "mean" or settings.judge.rubric == "factorized":
        return None
    why = "judge.rubric=unified gives one score, so there is nothing to aggregate"
    return Mistake(
        "judge.aggregate",
        settings.judge.aggregate,
        why,
        "set judge.aggregate=mean, or judge.rubric=factorized",
    )


@rule("learner.token_budget", "prompts.max_tokens", "rollout.max_completion_tokens")
def a_row_holds_the_longest_sequence(settings: RunSettings) -> Mistake | None:
    prompt, completion = settings.prompts.max_tokens, settings.rollout.max_completion_tokens
    budget = settings.learner.token_budget
    if budget >= prompt + completion:
        return None
    why = (
        f"a row must hold prompts.max_tokens + rollout.max_completion_tokens = {prompt} + {completion} tokens"
    )
    return Mistake(
        "learner.token_budget", budget, why, f"set learner.token_budget={prompt + completion} or more"
    )


@rule("algorithm.minibatches", "rollout.prompts_per_step")
def every_minibatch_has_a_group(settings: RunSettings) -> Mistake | None:
    minibatches, prompts = settings.algorithm.minibatches, settings.rollout.prompts_per_step
    if minibatches <= prompts:
        return None
    why = f"a step has rollout.prompts_per_step={prompts} groups, and a group is not divided"
    return Mistake("algorithm.minibatches", minibatches, why, f"set algorithm.minibatches={prompts} or fewer")


@rule("learner.ranks", "rollout.prompts_per_step", "rollout.group_size")
def every_rank_has_a_candidate(settings: RunSettings) -> Mistake | None:
    prompts, group, ranks = (
        settings.rollout.prompts_per_step,
        settings.rollout.group_size,
        settings.learner.ranks,
    )
    if ranks <= prompts * group:
        return None
    why = f"a step has {prompts} x {group} = {prompts * group} candidates, so some ranks would never have one"
    return Mistake(
        "learner.ranks",
        ranks,
        why,
        f"set learner.ranks={prompts * group} or fewer, or rollout.prompts_per_step higher",
    )


@rule("learner.warmup_steps", "steps")
def the_warm_up_ends_within_the_run(settings: RunSettings) -> Mistake | None:
    warmup = settings.learner.warmup_steps
    if warmup <= settings.steps:
        return None
    why = f"the run has {settings.steps} steps, so the peak learning rate is never reached"
    return Mistake("learner.warmup_steps", warmup, why, f"set learner.warmup_steps={settings.steps} or fewer")


@rule("rollout.gap_probes", "rollout.group_size")
def gap_probes_are_candidates(settings: RunSettings) -> Mistake | None:
    probes, group = settings.rollout.gap_probes, settings.rollout.group_size
    if probes <= group:
        return None
    return Mistake(
        "rollout.gap_probes",
        probes,
        f"a group has {group} candidates",
        f"set rollout.gap_probes={group} or fewer",
    )


@rule("learner.lora.targets")
def adapters_have_targets(settings: RunSettings) -> Mistake | None:
    lora = settings.learner.lora
    if lora is None or (lora.targets and len(set(lora.targets)) == len(lora.targets)):
        return None
    why = "names a layer twice" if lora.targets else "without a layer there is nothing to train"
    return Mistake(
        "learner.lora.targets", list(lora.targets), why, "name each linear layer once, as in [q_proj, v_proj]"
    )


@rule("convergence.window", "convergence.min_delta", "heldout.prompts")
def convergence_is_seen_on_held_out_prompts(settings: RunSettings) -> Mistake | None:
    if settings.convergence is None or settings.heldout.prompts > 0:
        return None
    return Mistake(
        "convergence",
        None,
        "heldout.prompts=0: nothing to see convergence on",
        "set heldout.prompts, or convergence=null",
    )


@rule("convergence.window", "heldout.every_steps", "steps")
def the_convergence_window_fits_the_run(settings: RunSettings) -> Mistake | None:
    if settings.convergence is None:
        return None
    evaluations = 1 + -(
        -settings.steps // settings.heldout.every_steps
    )  # one before step 1, one after the last step
    if settings.convergence.window <= evaluations:
        return None
    why = f"{settings.steps} steps have {evaluations} evaluations, so it can never be filled"
    remedy = (
        f"set convergence.window={evaluations} or fewer, or heldout.every_steps lower"
        if evaluations > 1
        else "set convergence=null"
    )
    return Mistake("convergence.window", settings.convergence.window, why, remedy)


@rule("deadlines.lease_s", "deadlines.batch_s")
def a_lost_group_can_come_back_in_time(settings: RunSettings) -> Mistake | None:
    lease_s, batch_s = settings.deadlines.lease_s, settings.deadlines.batch_s
    if lease_s < batch_s:
        return None
    why = f"the batch is given up after deadlines.batch_s={batch_s:g}, before a lost group is issued again"
    return Mistake(
        "deadlines.lease_s", lease_s, why, "set deadlines.lease_s lower, or deadlines.batch_s higher"
    )


@rule("rollout.workers.min", "rollout.workers.max")
def min_workers_at_most_max(settings: RunSettings) -> Mistake | None:
    workers = settings.rollout.workers
    if workers.min <= workers.max:
        return None
    why = f"is above rollout.workers.max={workers.max}"
    return Mistake(
        "rollout.workers.min",
        workers.min,
        why,
        f"set rollout.workers.max={workers.min} or more, or rollout.workers=2",
    )


@rule("weights.content", "learner.lora.targets")
def pushed_adapters_are_trained(settings: RunSettings) -> Mistake | None:
    if settings.weights.content == "full" or settings.learner.lora is not None:
        return None
    return Mistake(
        "weights.content",
        "adapter",
        "this run trains no adapters",
        "set learner.lora, or weights.content=full",
    )


@rule("learner.lora.rank", "weights.content")
def engines_hold_the_pushed_adapter(settings: RunSettings) -> Mistake | None:
    lora = settings.learner.lora
    if lora is None or settings.weights.content == "full" or lora.rank <= 512:
        return None
    why = "vLLM applies adapters of rank 512 or less"
    return Mistake(
        "learner.lora.rank", lora.rank, why, "set learner.lora.rank=512 or less, or weights.content=full"
    )


@rule("weights.transport", "weights.content")
def pushed_adapters_travel_by_the_object_store(settings: RunSettings) -> Mistake | None:
    transport = settings.weights.transport
    if settings.weights.content == "full" or transport in ("auto", "object_store"):
        return None
    why = "an adapter is a few megabytes, which engines read from a file"
    return Mistake("weights.transport", transport, why, "set weights.transport=auto, or weights.content=full")


@rule("placement.mode", "placement.device", "rollout.workers.min", "rollout.workers.max", "learner.ranks")
def gpus_are_shared_in_pairs(settings: RunSettings) -> Mistake | None:
    workers, ranks = settings.rollout.workers, settings.learner.ranks
    if (
        settings.placement.mode == "separate"
        or settings.placement.device == "cpu"
        or workers.min == workers.max == ranks
    ):
        return None
    why = (
        f"with placement.mode=shared each of the learner.ranks={ranks} takes turns with an engine of its own"
    )
    number = workers.min if workers.min == workers.max else f"{{min: {workers.min}, max: {workers.max}}}"
    return Mistake("rollout.workers", number, why, f"set rollout.workers={ranks}, or placement.mode=separate")


@rule("rollout.tensor_parallel", "placement.mode", "placement.device")
def an_engine_is_split_over_gpus_of_its_own(settings: RunSettings) -> Mistake | None:
    parts, place = settings.rollout.tensor_parallel, settings.placement
    if parts == 1 or (place.device == "gpu" and place.mode == "separate"):
        return None
    why = "placement.device=cpu has no GPUs to split an engine over"
    if place.device == "gpu":
        why = "with placement.mode=shared an engine takes turns with one rank on one GPU"
    return Mistake(
        "rollout.tensor_parallel",
        parts,
        why,
        "set rollout.tensor_parallel=1, or placement.mode=separate placement.device=gpu",
    )


@rule("placement.mode", "placement.device", "learner.zero_stage")
def a_learner_that_shares_its_gpu_can_leave_it(settings: RunSettings) -> Mistake | None:
    stage, place = settings.learner.zero_stage, settings.placement
    if (place.mode, place.device) != ("shared", "gpu") or stage in (1, 2):
        return None
    why = "with placement.mode=shared the learner's states leave the GPU in turn, which DeepSpeed can do at stages 1 and 2"
    return Mistake("learner.zero_stage", stage, why, "set learner.zero_stage=1, or placement.mode=separate")


@rule("checkpoint.mirror")
def a_mirror_s_address_holds_no_secret(settings: RunSettings) -> Mistake | None:
    address = urlsplit(settings.checkpoint.mirror or "")
    if ":" not in address.netloc and not re.search(r"(access|secret|token)[^=]*=", address.query):
        return None
    rule = "holds credentials, which config.yaml and the logs would show"
    return Mistake(
        "checkpoint.mirror",
        None,
        rule,
        "leave them out, and set them in the driver's environment (AWS_ACCESS_KEY_ID, …)",
    )


@rule("checkpoint.mirror", "runs")
def a_mirror_is_another_place_than_the_runs(settings: RunSettings) -> Mistake | None:
    address, runs = urlsplit(settings.checkpoint.mirror or ""), Path(settings.runs).expanduser().absolute()
    if address.scheme != "file" or not Path(address.path).is_relative_to(runs):
        return None
    why = f"lies among the runs in {runs}, whose loss it is for"
    return Mistake(
        "checkpoint.mirror", settings.checkpoint.mirror, why, "name a bucket, or a folder on another disk"
    )
