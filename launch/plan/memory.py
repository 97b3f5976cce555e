"""What each actor's memory is made of.

Every part has its formula, so that a refusal can name the figure that does not fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.pool import PoolSettings
from dynalign.launch.models.shape import ModelShape

GB = 1e9
ACTOR_BYTES = int(0.8 * GB)
"""A rollout worker with vLLM imported, measured on a CPU."""
ENGINE_CORE_BYTES = int(0.6 * GB)
"""EngineCore without weights and cache, measured on a CPU; one per GPU that the engine is split over."""
SMALL_ENGINE_BYTES = int(0.5 * GB)
"""An actor with the deterministic engine: a tokenizer, no torch."""
LEARNER_PROCESS_BYTES = int(0.8 * GB)
"""A rank with torch, transformers, DeepSpeed and reduction buffers, without a model, measured on a CPU."""
CUDA_CONTEXT_BYTES = int(1.0 * GB)
"""What CUDA, NCCL and captured graphs take of a GPU per process, also during another process's turn."""
GATEWAY_BYTES = int(0.12 * GB)
"""The actor that asks the endpoints, with its HTTP client, measured."""
RAY_BYTES = int(1.0 * GB)
"""Ray's own processes (0.5 GB), driver, coordinator and ledger, measured."""
OPTIMIZER_BYTES = 12
"""Per trained parameter: float32 master, first and second moment."""
STEP_GRADIENT_BYTES = 4
"""Per trained parameter: the float32 copy of the gradient, from which the step is computed."""
_BATCHED_TOKENS = 8192
"""Tokens that vLLM computes at one time on a GPU, longer contexts in chunks."""
_SCORED_BYTES = 8
"""Per logit that becomes a log-probability: the logit, its float32 log-softmax, ranks and masks."""

Where = Literal["host", "gpu", "disk"]


@dataclass(frozen=True)
class Part:
    """One share of the memory or disk that an actor or a run takes.

    `Part("weights", "134.5 M x 2 B", 269_030_016, "gpu")`
    """

    name: str
    """What takes it."""
    formula: str
    """How the size is computed, in words and figures."""
    size_bytes: int
    """The value of the formula."""
    where: Where = "host"
    """Which memory it takes."""
    of_the_first: bool = False
    """Whether only the first actor of its kind takes it."""


def precision_bytes(name: str) -> int:
    """Bytes of one number of that type."""
    return {"bfloat16": 2, "float32": 4}[name]


def count(number: int) -> str:
    """134,515,008 as `134.5 M`."""
    for scale, form in ((10**9, "{:.2f} G"), (10**6, "{:.1f} M"), (10**3, "{:.1f} k")):
        if number >= scale:
            return form.format(number / scale)
    return str(number)


def gigabytes(size_bytes: float) -> str:
    """1,234,000,000 as `1.2 GB`."""
    return f"{size_bytes / GB:.1f} GB"


def size(size_bytes: float) -> str:
    """In gigabytes from 0.1 GB on, else in megabytes: a weight version of adapters is small."""
    return gigabytes(size_bytes) if size_bytes >= 0.1 * GB else f"{size_bytes / 1e6:.1f} MB"


def engine_memory(
    settings: RunSettings, shape: ModelShape, staged: bool = False, copied: bool = True
) -> tuple[Part, ...]:
    """The memory of one rollout worker; parts on the GPU are those of each GPU that the engine is split over.

    staged: versions are sent from the GPU's memory, as in `learner_memory`.
    copied: a version is copied into the worker's memory on its way into the engine.
    """
    pushed = f"{count(pushed_parameters(settings, shape))} x {precision_bytes(settings.rollout.dtype)} B"
    in_shared_memory = f"{pushed} in shared memory, on its way in"
    buffer = Part("version landed", in_shared_memory, version_bytes(settings, shape))
    buffers = (buffer,) if copied else ()
    if settings.rollout.engine == "deterministic":
        return Part("process", "tokenizer, no model", SMALL_ENGINE_BYTES), *buffers
    element = precision_bytes(settings.rollout.dtype)
    gpus = settings.rollout.tensor_parallel
    released = shape.release
    model = f"as released ({released.method})" if released else f"{count(shape.parameters)} x {element} B"
    weights = shape.engine_bytes(element)
    in_turn = settings.placement.mode == "shared"
    kv_bytes = int(settings.rollout.kv_cache_gib * 2**30)
    if settings.placement.device == "cpu":
        process = Part("process", "vLLM without a model", ACTOR_BYTES + ENGINE_CORE_BYTES)
        packed = Part("weights", f"2 (plain, and packed for the CPU's kernels) x {model}", 2 * weights)
        cache = f"rollout.kv_cache_gib, {shape.kv_bytes_per_token(element):,} B per token"
        return process, packed, Part("key-values", cache, kv_bytes), *buffers
    process_of = f"vLLM without a model{f', {gpus} GPUs' if gpus > 1 else ''}"
    padding = shape.release.padding_bytes if shape.release else 0
    divided = f" / {gpus} GPUs" if gpus > 1 else ""
    cache = f"rollout.kv_cache_gib{divided}, {shape.kv_bytes_per_token(element, gpus):,} B per token"
    return (
        Part("process", process_of, ACTOR_BYTES + gpus * ENGINE_CORE_BYTES),
        *((Part("weights asleep", "while the learner has the GPU", weights + padding),) if in_turn else ()),
        *buffers,
        _cuda("context, graphs", in_turn),
        *((_staged(settings, shape),) if staged and in_turn else ()),
        Part("weights", model + divided, weights // gpus, "gpu"),
        *((Part("padding", "experts in the kernels' tiles", padding // gpus, "gpu"),) if padding else ()),
        *_engine_adapters(settings, shape, element),
        Part("key-values", cache, kv_bytes // gpus, "gpu"),
        _engine_activations(shape, element, gpus),
        _engine_logits(settings, shape),
    )


def pool_memory(pool: PoolSettings, on_gpu: bool, shape: ModelShape) -> tuple[Part, ...]:
    """The memory of one engine of `judge.pool`, as `engine_memory`. Its weights stay as they are.

    shape: of the pool's model."""
    if pool.engine == "deterministic":
        return (Part("process", "tokenizer, no model", SMALL_ENGINE_BYTES),)
    element = precision_bytes(pool.dtype)
    gpus = pool.tensor_parallel if on_gpu else 1
    released = shape.release
    weights = shape.engine_bytes(element)
    model = f"as released ({released.method})" if released else f"{count(shape.parameters)} x {element} B"
    divided = f" / {gpus} GPUs" if gpus > 1 else ""
    process = Part("process", "vLLM without a model", ACTOR_BYTES + gpus * ENGINE_CORE_BYTES)
    cache = f"judge.pool.kv_cache_gib{divided}, {shape.kv_bytes_per_token(element, gpus):,} B per token"
    kv_bytes = int(pool.kv_cache_gib * 2**30) // gpus
    if not on_gpu:
        packed = Part("weights", f"2 (plain, and packed for the CPU's kernels) x {model}", 2 * weights)
        return process, packed, Part("key-values", cache, kv_bytes)
    padding = 0 if released is None else released.padding_bytes // gpus
    tokens = f"{pool.max_sequences:,} sequences x {shape.vocabulary:,} x {_SCORED_BYTES} B"
    return (
        process,
        _cuda("context, graphs", in_turn=False),
        Part("weights", model + divided, weights // gpus, "gpu"),
        *((Part("padding", "experts in the kernels' tiles", padding, "gpu"),) if padding else ()),
        Part("key-values", cache, kv_bytes, "gpu"),
        _engine_activations(shape, element, gpus),
        Part("logits", tokens, pool.max_sequences * shape.vocabulary * _SCORED_BYTES, "gpu"),
    )


def _cuda(what: str, in_turn: bool) -> Part:
    """The process's CUDA context. Two processes that take turns on a GPU both keep theirs all the time."""
    if in_turn:
        return Part("CUDA", f"2 (its own, and the one asleep) x {what}", 2 * CUDA_CONTEXT_BYTES, "gpu")
    return Part("CUDA", what, CUDA_CONTEXT_BYTES, "gpu")


def _engine_adapters(settings: RunSettings, shape: ModelShape, element: int) -> tuple[Part, ...]:
    """The adapters in use and those being loaded; empty for a run that sends full weights."""
    if settings.weights.content != "adapter":
        return ()
    adapters = trained_parameters(settings, shape)
    formula = f"2 (in use, and loading) x {count(adapters)} x {element} B"
    return (Part("adapters", formula, 2 * adapters * element, "gpu"),)


def _engine_activations(shape: ModelShape, element: int, gpus: int) -> Part:
    """What one layer holds of the tokens computed at one time; tensor parallelism divides the MLP."""
    divided = 2 * shape.mlp + shape.routed
    widths = 2 * shape.hidden + divided // gpus
    named = f"2 mlp{' + routed' if shape.routed else ''}"
    made_of = f"2 hidden + {f'({named}) / {gpus}' if gpus > 1 else named}"
    formula = f"{_BATCHED_TOKENS:,} tokens x {widths:,} ({made_of}) x {element} B"
    return Part("activations", formula, _BATCHED_TOKENS * widths * element, "gpu")


def _engine_logits(settings: RunSettings, shape: ModelShape) -> Part:
    """The logits of one decoding step, or of one context whose log-probabilities are asked for.

    vLLM computes the latter for a whole context at one time.
    """
    tokens = settings.rollout.max_sequences
    of = "sequences"
    rollout = settings.rollout
    if rollout.gap_probes or rollout.mismatch_fraction or rollout.record_behaviour:
        longest = settings.prompts.max_tokens + settings.rollout.max_completion_tokens
        probed = min(longest, _BATCHED_TOKENS)
        if probed >= tokens:
            tokens = probed
            of = "tokens of a probed context"
    formula = f"{tokens:,} {of} x {shape.vocabulary:,} x {_SCORED_BYTES} B"
    return Part("logits", formula, tokens * shape.vocabulary * _SCORED_BYTES, "gpu")


def _staged(settings: RunSettings, shape: ModelShape) -> Part:
    """The version that rank 0 sends from GPU memory, where it stays: another process reads it there."""
    element = precision_bytes(settings.rollout.dtype)
    formula = f"{count(pushed_parameters(settings, shape))} x {element} B, rank 0's, sent from there"
    return Part("version staged", formula, version_bytes(settings, shape), "gpu")


def learner_memory(settings: RunSettings, shape: ModelShape, staged: bool = False) -> tuple[Part, ...]:
    """The memory of one learner rank.

    ZeRO divides the optimizer (from stage 1), the gradients (2) and the weights (3) by the number of ranks.
    staged: versions are sent from the GPU's memory.
    """
    learner = settings.learner
    where: Where = "gpu" if settings.placement.device == "gpu" else "host"
    element = precision_bytes(learner.precision)
    trained = trained_parameters(settings, shape)
    in_turn = where == "gpu" and settings.placement.mode == "shared"

    def state(name: str, parameters: int, per_parameter: int, stage: int, of: str = "") -> Part:
        ranks = learner.ranks if learner.zero_stage >= stage else 1
        formula = f"{of}{count(parameters)} x {per_parameter} B" + (f" / {ranks} ranks" if ranks > 1 else "")
        return Part(name, formula, parameters * per_parameter // ranks, where)

    held = shape.parameters + (trained if learner.lora else 0)
    of = "base and adapters, " if learner.lora else ""
    unpacked = f"{of}unpacked to {learner.precision}, " if shape.release else of
    weights = state("weights", held, element, 3, unpacked)
    optimizer = state("optimizer", trained, OPTIMIZER_BYTES, 1)
    initial = f"for algorithm.kl_coef: {count(shape.parameters)} x {element} B"
    reference = Part("initial policy", initial, shape.parameters * element, where)
    asleep_bytes = weights.size_bytes + optimizer.size_bytes
    asleep = Part("states asleep", "while the engine has the GPU: weights, optimizer", asleep_bytes)
    parts = (
        Part("process", "torch and DeepSpeed without a model", LEARNER_PROCESS_BYTES),
        *((asleep,) if in_turn else ()),
        *((_cuda("context, NCCL", in_turn),) if where == "gpu" else ()),
        weights,
        *((reference,) if settings.algorithm.kl_coef > 0 and learner.lora is None else ()),
        state("gradients", trained, element + STEP_GRADIENT_BYTES, 2),
        optimizer,
        *((_staged(settings, shape),) if staged else ()),
        _activations(settings, shape, element, where),
        *_attention_scores(settings, shape, element, where),
        _logits(settings, shape, where),
    )
    return (*parts, *_packing_probe(shape, parts))


def _packing_probe(shape: ModelShape, parts: Sequence[Part]) -> tuple[Part, ...]:
    """What rank 0 takes of the host before it trains, beyond what it takes later; empty if that is less.

    It loads the whole model there, and tries in float32 whether its rows can be packed
    (`learner/packing_probe.py`).
    """
    probe_bytes = 4 * shape.parameters
    later_bytes = sum(part.size_bytes for part in parts[1:] if part.where == "host")
    if probe_bytes <= later_bytes:
        return ()
    later = f"less {size(later_bytes)} that come after it"
    formula = f"rank 0's: {count(shape.parameters)} x 4 B before training, {later}"
    return (Part("packing probe", formula, probe_bytes - later_bytes, of_the_first=True),)


def trained_parameters(settings: RunSettings, shape: ModelShape) -> int:
    """How many parameters are trained: the adapters', where the run trains adapters, else all."""
    lora = settings.learner.lora
    return shape.parameters if lora is None else shape.adapter_parameters(lora.rank, lora.targets)


def pushed_parameters(settings: RunSettings, shape: ModelShape) -> int:
    """How many parameters one weight version holds."""
    return trained_parameters(settings, shape) if settings.weights.content == "adapter" else shape.parameters


def version_bytes(settings: RunSettings, shape: ModelShape) -> int:
    """The size of one weight version, as it is sent."""
    return pushed_parameters(settings, shape) * precision_bytes(settings.rollout.dtype)


def _activations(settings: RunSettings, shape: ModelShape, element: int, where: Where) -> Part:
    """What all decoder layers keep for their backward pass.

    Per token and layer: 3 hidden, queries and keys twice, and 4 mlp in the compute precision; 30 bytes per
    hidden unit in float32 (norms, rotary embedding); with experts, also what is sent to them and back.
    The formula was fitted to a Llama layer's measured 36 kB (bfloat16) and 55 kB (float32) per token.
    With gradient checkpointing only each layer's input stays, and one layer at a time is computed again.
    """
    tokens = settings.learner.token_budget
    layers = shape.layers
    widths = 3 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 4 * shape.mlp + 2 * shape.routed
    layer = element * widths + 30 * shape.hidden
    if settings.learner.gradient_checkpointing:
        kept = element * shape.hidden
        formula = f"({layers} layers x {kept:,} B + {layer:,} B)"
        per_token = layers * kept + layer
    else:
        formula = f"{layers} layers x {layer:,} B"
        per_token = layers * layer
    return Part("activations", f"{tokens:,} tokens x {formula}", tokens * per_token, where)


def _attention_scores(
    settings: RunSettings, shape: ModelShape, element: int, where: Where
) -> tuple[Part, ...]:
    """The scores of attention with sinks, which has no fused kernel.

    Bias, scores, softmax and its gradient exist for one sequence of each layer that is kept.
    """
    if not shape.sinks:
        return ()
    longest = settings.prompts.max_tokens + settings.rollout.max_completion_tokens
    layers = 1 if settings.learner.gradient_checkpointing else shape.layers
    formula = (
        f"{layers} layer{'s' if layers > 1 else ''} x {shape.heads} heads x {longest:,}² tokens "
        f"x 4 (bias, scores, softmax, gradient) x {element} B"
    )
    return (Part("attention", formula, layers * shape.heads * longest**2 * 4 * element, where),)


def _logits(settings: RunSettings, shape: ModelShape, where: Where) -> Part:
    """The float32 logits of one chunk, with their softmax and gradient."""
    tokens = min(settings.learner.logprob_chunk_tokens, settings.learner.token_budget)
    formula = f"{tokens:,} tokens x {shape.vocabulary:,} x 3 (logits, softmax, gradient) x 4 B"
    return Part("logits", formula, tokens * shape.vocabulary * 12, where)


def common_memory(
    settings: RunSettings, shape: ModelShape, started_here: bool, versions: int
) -> tuple[Part, ...]:
    """What a node needs beside its actors.

    started_here: the driver starts Ray; a running cluster has its processes and object store already.
    versions: how many weight versions rank 0 keeps.
    """
    element = precision_bytes(settings.rollout.dtype)
    times = "" if versions == 1 else f"{versions} x "
    what = f"{times}{count(pushed_parameters(settings, shape))} x {element} B, rank 0's buckets"
    made = Part("version made", what, versions * version_bytes(settings, shape))
    if not started_here:
        return (made,)
    store_bytes = int(settings.placement.object_store_gib * 2**30)
    store = Part("object store", "placement.object_store_gib", store_bytes)
    gateway = Part("gateway", "the actor that asks judge.endpoints", GATEWAY_BYTES)
    asked = (gateway,) if settings.judge.endpoints else ()
    return Part("processes", "Ray, driver, coordinator, ledger", RAY_BYTES), *asked, store, made
