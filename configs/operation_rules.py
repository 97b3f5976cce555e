"""Rules between settings of operating a run: devices, workers, deadlines, transport of weights, mirror."""

import ipaddress
import re
from pathlib import Path
from urllib.parse import urlsplit

from dynalign.configs.errors import Mistake
from dynalign.configs.prompt_sources import source_rule
from dynalign.configs.rule_table import RuleTable
from dynalign.configs.schema import RunSettings
from dynalign.configs.user_paths import path_rule

RULES = RuleTable()

_HOST_NAME = re.compile(
    r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*\.?", re.IGNORECASE | re.ASCII
)


@RULES.reading("placement.mode", "algorithm.max_staleness")
def shared_placement_needs_zero_staleness(settings: RunSettings) -> Mistake | None:
    staleness = settings.algorithm.max_staleness
    if settings.placement.mode == "separate" or staleness == 0:
        return None
    why = "with placement.mode=shared engine and learner take turns, so no token is of an older version"
    return Mistake(
        "algorithm.max_staleness", staleness, why, "set algorithm.max_staleness=0, or placement.mode=separate"
    )


@RULES.reading("deadlines.lease_s", "deadlines.batch_s")
def lease_deadline_below_batch_deadline(settings: RunSettings) -> Mistake | None:
    lease_s = settings.deadlines.lease_s
    batch_s = settings.deadlines.batch_s
    if lease_s < batch_s:
        return None
    why = f"the batch is given up after deadlines.batch_s={batch_s:g}, before a lost group is issued again"
    return Mistake(
        "deadlines.lease_s", lease_s, why, "set deadlines.lease_s lower, or deadlines.batch_s higher"
    )


@RULES.reading("rollout.workers.min", "rollout.workers.max")
def min_workers_at_most_max(settings: RunSettings) -> Mistake | None:
    workers = settings.rollout.workers
    if workers.min <= workers.max:
        return None
    why = f"is above rollout.workers.max={workers.max}"
    return Mistake(
        "rollout.workers.min",
        workers.min,
        why,
        f"set rollout.workers.max={workers.min} or more, or rollout.workers={workers.max}",
    )


@RULES.reading("weights.content", "learner.lora.targets")
def adapter_content_needs_lora(settings: RunSettings) -> Mistake | None:
    if settings.weights.content == "full" or settings.learner.lora is not None:
        return None
    return Mistake(
        "weights.content",
        "adapter",
        "this run trains no adapters",
        "set learner.lora, or weights.content=full",
    )


@RULES.reading("learner.lora.rank", "weights.content")
def adapter_rank_at_most_512(settings: RunSettings) -> Mistake | None:
    lora = settings.learner.lora
    if lora is None or settings.weights.content == "full" or lora.rank <= 512:
        return None
    why = "vLLM applies adapters of rank 512 or less"
    return Mistake(
        "learner.lora.rank", lora.rank, why, "set learner.lora.rank=512 or less, or weights.content=full"
    )


@RULES.reading("weights.transport", "weights.content")
def adapter_content_needs_object_store(settings: RunSettings) -> Mistake | None:
    transport = settings.weights.transport
    if settings.weights.content == "full" or transport in ("auto", "object_store"):
        return None
    why = "an adapter is a few megabytes, which engines read from a file"
    return Mistake("weights.transport", transport, why, "set weights.transport=auto, or weights.content=full")


@RULES.reading(
    "placement.mode", "placement.device", "rollout.workers.min", "rollout.workers.max", "learner.ranks"
)
def shared_gpus_need_one_worker_per_rank(settings: RunSettings) -> Mistake | None:
    workers = settings.rollout.workers
    ranks = settings.learner.ranks
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


@RULES.reading("rollout.tensor_parallel", "placement.mode", "placement.device")
def tensor_parallel_needs_separate_gpus(settings: RunSettings) -> Mistake | None:
    parts = settings.rollout.tensor_parallel
    placement = settings.placement
    if parts == 1 or (placement.device == "gpu" and placement.mode == "separate"):
        return None
    why = "placement.device=cpu has no GPUs to split an engine over"
    if placement.device == "gpu":
        why = "with placement.mode=shared an engine takes turns with one rank on one GPU"
    return Mistake(
        "rollout.tensor_parallel",
        parts,
        why,
        "set rollout.tensor_parallel=1, or placement.mode=separate placement.device=gpu",
    )


@RULES.reading("judge.pool.tensor_parallel", "placement.device")
def pool_tensor_parallel_needs_gpus(settings: RunSettings) -> Mistake | None:
    pool = settings.judge.pool
    if pool is None or pool.tensor_parallel == 1 or settings.placement.device == "gpu":
        return None
    why = "placement.device=cpu has no GPUs to split an engine over"
    remedy = "set judge.pool.tensor_parallel=1, or placement.device=gpu"
    return Mistake("judge.pool.tensor_parallel", pool.tensor_parallel, why, remedy)


@RULES.reading("judge.pool.answer_s", "deadlines.start_s", "deadlines.group_s")
def pool_answers_before_its_group_is_late(settings: RunSettings) -> Mistake | None:
    pool = settings.judge.pool
    group_s = settings.deadlines.group_s
    if pool is None or pool.answer_s + settings.deadlines.start_s < group_s:
        return None
    why = (
        f"with deadlines.start_s={settings.deadlines.start_s:g} for a new engine, an answer may take longer "
        f"than deadlines.group_s={group_s:g}, after which the worker that asks counts as hanging"
    )
    remedy = "set judge.pool.answer_s or deadlines.start_s lower, or deadlines.group_s higher"
    return Mistake("judge.pool.answer_s", pool.answer_s, why, remedy)


@RULES.reading("judge.pool.model")
def pool_model_is_a_name_or_a_path(settings: RunSettings) -> Mistake | None:
    pool = settings.judge.pool
    return None if pool is None or pool.model is None else _path_mistake("judge.pool.model", pool.model)


@RULES.reading("placement.mode", "placement.device", "learner.zero_stage")
def shared_gpu_needs_zero_stage_1_or_2(settings: RunSettings) -> Mistake | None:
    stage = settings.learner.zero_stage
    placement = settings.placement
    if (placement.mode, placement.device) != ("shared", "gpu") or stage in (1, 2):
        return None
    why = "with placement.mode=shared the learner's state leaves the GPU in turn: DeepSpeed stages 1 and 2"
    return Mistake("learner.zero_stage", stage, why, "set learner.zero_stage=1, or placement.mode=separate")


@RULES.reading("learner.attention", "learner.precision", "placement.device")
def varlen_attention_needs_bfloat16_on_a_gpu(settings: RunSettings) -> Mistake | None:
    learner = settings.learner
    if learner.attention == "sdpa":
        return None
    if settings.placement.device == "cpu":
        why = "flash attention has no kernel for placement.device=cpu"
        return Mistake("learner.attention", learner.attention, why, "set learner.attention=sdpa")
    if learner.precision == "bfloat16":
        return None
    why = f"flash attention has no kernel for learner.precision={learner.precision}"
    remedy = "set learner.attention=sdpa, or learner.precision=bfloat16"
    return Mistake("learner.attention", learner.attention, why, remedy)


@RULES.reading("checkpoint.mirror")
def mirror_address_without_credentials(settings: RunSettings) -> Mistake | None:
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


@RULES.reading("checkpoint.mirror", "runs")
def mirror_outside_runs_folder(settings: RunSettings) -> Mistake | None:
    address = urlsplit(settings.checkpoint.mirror or "")
    if path_rule(settings.runs) is not None:
        return None  # `runs_is_a_folder` says what is wrong
    runs = Path(settings.runs).expanduser().absolute()
    if address.scheme != "file" or not Path(address.path).is_relative_to(runs):
        return None
    why = f"is in the folder of the runs, {runs}, and would be lost with it"
    return Mistake(
        "checkpoint.mirror", settings.checkpoint.mirror, why, "name a bucket, or a folder on another disk"
    )


@RULES.reading("runs")
def runs_is_a_folder(settings: RunSettings) -> Mistake | None:
    return _path_mistake("runs", settings.runs)


@RULES.reading("model")
def model_is_a_name_or_a_path(settings: RunSettings) -> Mistake | None:
    return _path_mistake("model", settings.model)


@RULES.reading("judge.values")
def values_is_a_folder(settings: RunSettings) -> Mistake | None:
    return None if settings.judge.values is None else _path_mistake("judge.values", settings.judge.values)


@RULES.reading("prompts.source")
def prompts_source_is_a_known_kind(settings: RunSettings) -> Mistake | None:
    source = settings.prompts.source
    broken = source_rule(source)
    return None if broken is None else Mistake("prompts.source", source, *broken)


def _path_mistake(place: str, text: str) -> Mistake | None:
    broken = path_rule(text)
    return None if broken is None else Mistake(place, text, *broken)


@RULES.reading("metrics.host")
def metrics_host_is_an_address(settings: RunSettings) -> Mistake | None:
    host = settings.metrics.host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # A name of digits and dots alone is a mistyped address.
        if len(host) <= 253 and _HOST_NAME.fullmatch(host) and not re.fullmatch(r"[\d.]+", host):
            return None
        rule = "is neither an address nor a host name"
        return Mistake(
            "metrics.host", host, rule, "set metrics.host=127.0.0.1, or 0.0.0.0 for other nodes, too"
        )
    return None
