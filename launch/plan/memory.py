"""What each actor's memory is made of: every part with its formula, so that a refusal can name the figure that does not fit."""

from dataclasses import dataclass
from typing import Literal

from dynalign.configs.schema import RunSettings
from dynalign.launch.models.shape import ModelShape

GB = 1e9
ACTOR_BYTES = int(0.8 * GB)
"""A rollout worker with vLLM imported, measured on a CPU."""
ENGINE_CORE_BYTES = int(0.6 * GB)
"""EngineCore without weights and cache, measured on a CPU; one per GPU that the engine is split over."""
SMALL_ENGINE_BYTES = int(0.5 * GB)
"""An actor with the deterministic engine: a tokenizer, no torch."""
LEARNER_PROCESS_BYTES = int(0.8 * GB)
"""A rank with torch, transformers, DeepSpeed and its reduction buffers, without its model, measured on a CPU."""
CUDA_CONTEXT_BYTES = int(1.0 * GB)
"""What CUDA, NCCL and captured graphs take of a GPU per process, whoever has the turn."""
RAY_BYTES = int(1.0 * GB)
"""Ray's own processes (0.5 GB), driver, coordinator and ledger, measured."""
OPTIMIZER_BYTES = 12
"""Per trained parameter: float32 master, first and second moment."""
STEP_GRADIENT_BYTES = 4
"""Per trained parameter: the float32 copy of the gradient, from which the step is computed."""
_BATCHED_TOKENS = 8192
"""Tokens that vLLM computes at one time on a GPU, longer contexts in chunks."""
_SCORED_BYTES = 8
"""Per logit that an engine turns into log-probabilities: the logit, its float32 log-softmax, ranks and masks."""

Where = Literal["host", "gpu", "disk"]


@dataclass(frozen=True)
class Part:
    """One share of what an actor or a run takes: `formula` in words and figures, its value in bytes, and of what."""

    name: str
    formula: str
    size_bytes: int
    where: Where = "host"


def precision_bytes(name: str) -> int:
    return {"bfloat16": 2, "float32": 4}[name]


def count(number: int) -> str:
    """134,515,008 as `134.5 M`."""
    for scale, form in ((10**9, "{:.2f} G"), (10**6, "{:.1f} M"), (10**3, "{:.1f} k")):
        if number >= scale:
            return form.format(number / scale)
    return str(number)


def gigabytes(size_bytes: float) -> str:
    return f"{size_bytes / GB:.1f} GB"


def size(size_bytes: float) -> str:
    """In gigabytes from 0.1 GB on, else in megabytes: a version of adapters is small."""
    return gigabytes(size_bytes) if size_bytes >= 0.1 * GB else f"{size_bytes / 1e6:.1f} MB"


def engine_memory(
    settings: RunSettings, shape: ModelShape, staged: bool = False, lands: bool = True
) -> tuple[Part, ...]:
    """One rollout worker's parts; those on the GPU are of each GPU that the engine is split over. staged: see `learner_memory`. lands: a
    version is copied on its way in."""
    pushed = f"{count(pushed_parameters(settings, shape))} x {precision_bytes(settings.rollout.dtype)} B"
    landed = (
        (Part("version landed", f"{pushed} in shared memory, on its way in", version_bytes(settings, shape)),)
        if lands
        else ()
    )
    if settings.rollout.engine == "deterministic":
        return Part("process", "tokenizer, no model", SMALL_ENGINE_BYTES), *landed
    element, gpus = precision_bytes(settings.rollout.dtype), settings.rollout.tensor_parallel
    model = (
        f"as released ({shape.release.method})"
        if shape.release
        else f"{count(shape.parameters)} x {element} B"
    )
    weights, in_turn = shape.engine_bytes(element), settings.placement.mode == "shared"
    kv_bytes = int(settings.rollout.kv_cache_gib * 2**30)
    if settings.placement.device == "cpu":
        process = Part("process", "vLLM without a model", ACTOR_BYTES + ENGINE_CORE_BYTES)
        packed = Part("weights", f"2 (plain, and packed for the CPU's kernels) x {model}", 2 * weights)
        cache = f"rollout.kv_cache_gib, {shape.kv_bytes_per_token(element):,} B per token"
        return process, packed, Part("key-values", cache, kv_bytes), *landed
    padding = shape.release.padding_bytes if shape.release else 0
    divided = f" / {gpus} GPUs" if gpus > 1 else ""
    cache = f"rollout.kv_cache_gib{divided}, {shape.kv_bytes_per_token(element, gpus):,} B per token"
    return (
        Part(
            "process",
            f"vLLM without a model{f', {gpus} GPUs' if gpus > 1 else ''}",
            ACTOR_BYTES + gpus * ENGINE_CORE_BYTES,
        ),
        *((Part("weights asleep", "while the learner has the GPU", weights + padding),) if in_turn else ()),
        *landed,
        _cuda("context, graphs", in_turn),
        *((_staged(settings, shape),) if staged and in_turn else ()),
        Part("weights", model + divided, weights // gpus, "gpu"),
        *((Part("padding", "experts in the kernels' tiles", padding // gpus, "gpu"),) if padding else ()),
        *_engine_adapters(settings, shape, element),
        Part("key-values", cache, kv_bytes // gpus, "gpu"),
        _engine_activations(shape, element, gpus),
        _engine_logits(settings, shape),
    )


def _cuda(what: str, in_turn: bool) -> Part:
    """On a GPU that two processes take turns on, both contexts are there all the time."""
    if in_turn:
        return Part("CUDA", f"2 (its own, and the one asleep) x {what}", 2 * CUDA_CONTEXT_BYTES, "gpu")
    return Part("CUDA", what, CUDA_CONTEXT_BYTES, "gpu")


def _engine_adapters(settings: RunSettings, shape: ModelShape, element: int) -> tuple[Part, ...]:
    if settings.weights.content != "adapter":
        return ()
    adapters = trained_parameters(settings, shape)
    return (
        Part(
            "adapters",
            f"2 (in use, and loading) x {count(adapters)} x {element} B",
            2 * adapters * element,
            "gpu",
        ),
    )


def _engine_activations(shape: ModelShape, element: int, gpus: int) -> Part:
    split = 2 * shape.mlp + shape.routed
    widths = 2 * shape.hidden + split // gpus
    made_of = f"2 hidden + {'(' if gpus > 1 else ''}2 mlp{' + routed' if shape.routed else ''}{f') / {gpus}' if gpus > 1 else ''}"
    formula = f"{_BATCHED_TOKENS:,} tokens x {widths:,} ({made_of}) x {element} B"
    return Part("activations", formula, _BATCHED_TOKENS * widths * element, "gpu")


def _engine_logits(settings: RunSettings, shape: ModelShape) -> Part:
    """Of the sequences in a decoding step, or of one prompt whose log-probabilities are asked for: a whole context at one time."""
    tokens, of = settings.rollout.max_sequences, "sequences"
    if settings.rollout.gap_probes or settings.rollout.record_behaviour:
        longest = settings.prompts.max_tokens + settings.rollout.max_completion_tokens
        tokens, of = max((tokens, of), (min(longest, _BATCHED_TOKENS), "tokens of a probed context"))
    return Part(
        "logits",
        f"{tokens:,} {of} x {shape.vocabulary:,} x {_SCORED_BYTES} B",
        tokens * shape.vocabulary * _SCORED_BYTES,
        "gpu",
    )


def _staged(settings: RunSettings, shape: ModelShape) -> Part:
    """It stays where it is, whoever has the turn: another process reads there."""
    formula = f"{count(pushed_parameters(settings, shape))} x {precision_bytes(settings.rollout.dtype)} B, rank 0's, sent from there"
    return Part("version staged", formula, version_bytes(settings, shape), "gpu")


def learner_memory(settings: RunSettings, shape: ModelShape, staged: bool = False) -> tuple[Part, ...]:
    """One rank's parts. ZeRO divides optimizer (stage 1), gradients (2), weights (3) by the number of ranks. staged: versions are sent
    from the GPU's memory."""
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
    weights = state(
        "weights", held, element, 3, f"{of}unpacked to {learner.precision}, " if shape.release else of
    )
    optimizer = state("optimizer", trained, OPTIMIZER_BYTES, 1)
    reference = Part(
        "initial policy",
        f"for algorithm.kl_coef: {count(shape.parameters)} x {element} B",
        shape.parameters * element,
        where,
    )
    asleep = Part(
        "states asleep",
        "while the engine has the GPU: weights, optimizer",
        weights.size_bytes + optimizer.size_bytes,
    )
    return (
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


def trained_parameters(settings: RunSettings, shape: ModelShape) -> int:
    """All of them, or the adapters' where the run trains adapters."""
    lora = settings.learner.lora
    return shape.parameters if lora is None else shape.adapter_parameters(lora.rank, lora.targets)


def pushed_parameters(settings: RunSettings, shape: ModelShape) -> int:
    """What one weight version holds."""
    return trained_parameters(settings, shape) if settings.weights.content == "adapter" else shape.parameters


def version_bytes(settings: RunSettings, shape: ModelShape) -> int:
    """One weight version, as it travels."""
    return pushed_parameters(settings, shape) * precision_bytes(settings.rollout.dtype)


def _activations(settings: RunSettings, shape: ModelShape, element: int, where: Where) -> Part:
    """What a decoder layer keeps for its backward pass: 3 hidden, queries and keys twice, 4 mlp in the compute precision, and 30 bytes
    per hidden unit in float32 (norms, rotary embedding); with experts, also what travels to them and back. Fitted to a Llama layer's
    measured 36 kB (bfloat16) and 55 kB (float32) per token; with checkpointing only each layer's input stays, and one layer at a time
    is computed again."""
    tokens, layers = settings.learner.token_budget, shape.layers
    widths = 3 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 4 * shape.mlp + 2 * shape.routed
    layer = element * widths + 30 * shape.hidden
    if settings.learner.gradient_checkpointing:
        kept = element * shape.hidden
        formula, per_token = f"({layers} layers x {kept:,} B + {layer:,} B)", layers * kept + layer
    else:
        formula, per_token = f"{layers} layers x {layer:,} B", layers * layer
    return Part("activations", f"{tokens:,} tokens x {formula}", tokens * per_token, where)


def _attention_scores(
    settings: RunSettings, shape: ModelShape, element: int, where: Where
) -> tuple[Part, ...]:
    """Attention with sinks has no fused kernel: bias, scores, softmax and its gradient exist for one sequence of one layer."""
    if not shape.sinks:
        return ()
    longest = settings.prompts.max_tokens + settings.rollout.max_completion_tokens
    layers = 1 if settings.learner.gradient_checkpointing else shape.layers
    formula = f"{layers} layer{'s' if layers > 1 else ''} x {shape.heads} heads x {longest:,}² tokens x 4 (bias, scores, softmax, gradient)"
    return (
        Part("attention", f"{formula} x {element} B", layers * shape.heads * longest**2 * 4 * element, where),
    )


def _logits(settings: RunSettings, shape: ModelShape, where: Where) -> Part:
    tokens = min(settings.learner.logprob_chunk_tokens, settings.learner.token_budget)
    formula = f"{tokens:,} tokens x {shape.vocabulary:,} x 3 (logits, softmax, gradient) x 4 B"
    return Part("logits", formula, tokens * shape.vocabulary * 12, where)


def common_memory(
    settings: RunSettings, shape: ModelShape, started_here: bool, versions: int
) -> tuple[Part, ...]:
    """What a node has beside its actors. A cluster that is already running has processes and an object store of its own. versions: that
    rank 0 keeps."""
    element = precision_bytes(settings.rollout.dtype)
    what = f"{'' if versions == 1 else f'{versions} x '}{count(pushed_parameters(settings, shape))} x {element} B, rank 0's buckets"
    made = Part("version made", what, versions * version_bytes(settings, shape))
    if not started_here:
        return (made,)
    store = Part(
        "object store", "placement.object_store_gib", int(settings.placement.object_store_gib * 2**30)
    )
    return Part("processes", "Ray, driver, coordinator, ledger", RAY_BYTES), store, made
