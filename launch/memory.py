"""What each actor's memory is made of: every part with its formula, so that a refusal can name the figure that does not fit."""

from dataclasses import dataclass
from typing import Literal

from configs.schema import RunSettings
from launch.model_shape import ModelShape

GB = 1e9
ENGINE_PROCESS_BYTES = int(1.4 * GB)
"""An actor with vLLM imported (0.8 GB) and EngineCore without weights and cache (0.6 GB), measured on a CPU."""
SMALL_ENGINE_BYTES = int(0.5 * GB)
"""An actor with the deterministic engine: a tokenizer, no torch."""
LEARNER_PROCESS_BYTES = int(0.8 * GB)
"""A rank with torch, transformers, DeepSpeed and its reduction buffers, without its model, measured on a CPU."""
CUDA_CONTEXT_BYTES = int(1.0 * GB)
"""What CUDA, NCCL and captured graphs take of a GPU per process."""
RAY_BYTES = int(1.0 * GB)
"""Ray's own processes (0.5 GB), driver, coordinator and ledger, measured."""
OPTIMIZER_BYTES = 12
"""Per trained parameter: float32 master, first and second moment."""
STEP_GRADIENT_BYTES = 4
"""Per trained parameter: the float32 copy of the gradient, from which the step is computed."""
_BATCHED_TOKENS = 8192
"""Tokens that vLLM computes at one time on a GPU, longer contexts in chunks."""

Where = Literal["host", "gpu"]


@dataclass(frozen=True)
class Part:
    """One share of an actor's memory: `formula` in words and figures, its value in bytes, and on which memory it lies."""

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


def engine_memory(settings: RunSettings, shape: ModelShape) -> tuple[Part, ...]:
    """One rollout worker's parts."""
    if settings.rollout.engine == "deterministic":
        return (Part("process", "tokenizer, no model", SMALL_ENGINE_BYTES),)
    element = precision_bytes(settings.rollout.dtype)
    model = f"{count(shape.parameters)} x {element} B"
    weights = shape.parameters * element
    process = Part("process", "vLLM without a model", ENGINE_PROCESS_BYTES)
    cache = f"rollout.kv_cache_gib, {shape.kv_bytes_per_token(element):,} B per token"
    kv_bytes = int(settings.rollout.kv_cache_gib * 2**30)
    if settings.placement.device == "cpu":
        packed = Part("weights", f"2 (plain, and packed for the CPU's kernels) x {model}", 2 * weights)
        return process, packed, Part("key-values", cache, kv_bytes)
    asleep = Part("weights asleep", "in host memory while the learner has the GPU", weights)
    widths = 2 * shape.hidden + 2 * shape.mlp
    batch = f"{_BATCHED_TOKENS:,} tokens x {widths:,} (2 hidden + 2 mlp) x {element} B"
    return (
        process,
        *((asleep,) if settings.placement.mode == "shared" else ()),
        Part("CUDA", "context, graphs", CUDA_CONTEXT_BYTES, "gpu"),
        Part("weights", model, weights, "gpu"),
        Part("key-values", cache, kv_bytes, "gpu"),
        Part("activations", batch, _BATCHED_TOKENS * widths * element, "gpu"),
    )


def learner_memory(settings: RunSettings, shape: ModelShape) -> tuple[Part, ...]:
    """One rank's parts. ZeRO divides optimizer (stage 1), gradients (2), weights (3) by the number of ranks."""
    learner = settings.learner
    where: Where = "gpu" if settings.placement.device == "gpu" else "host"
    element = precision_bytes(learner.precision)
    trained = trained_parameters(settings, shape)

    def state(name: str, parameters: int, per_parameter: int, stage: int) -> Part:
        ranks = learner.ranks if learner.zero_stage >= stage else 1
        formula = f"{count(parameters)} x {per_parameter} B" + (f" / {ranks} ranks" if ranks > 1 else "")
        return Part(name, formula, parameters * per_parameter // ranks, where)

    weights = state("weights", shape.parameters, element, 3)
    optimizer = state("optimizer", trained, OPTIMIZER_BYTES, 1)
    reference = Part("initial policy", f"for algorithm.kl_coef: {count(shape.parameters)} x {element} B", shape.parameters * element, where)
    asleep = Part("states asleep", "in host memory while the engine has the GPU", weights.size_bytes + optimizer.size_bytes)
    return (
        Part("process", "torch and DeepSpeed without a model", LEARNER_PROCESS_BYTES),
        *((asleep,) if where == "gpu" and settings.placement.mode == "shared" else ()),
        *((Part("CUDA", "context, NCCL", CUDA_CONTEXT_BYTES, "gpu"),) if where == "gpu" else ()),
        weights,
        *((reference,) if settings.algorithm.kl_coef > 0 and learner.lora is None else ()),
        state("gradients", trained, element + STEP_GRADIENT_BYTES, 2),
        optimizer,
        _activations(settings, shape, element, where),
        _logits(settings, shape, where),
    )


def trained_parameters(settings: RunSettings, shape: ModelShape) -> int:
    """All of them, or the adapters' where the run trains adapters."""
    lora = settings.learner.lora
    return shape.parameters if lora is None else shape.adapter_parameters(lora.rank, lora.targets)


def _activations(settings: RunSettings, shape: ModelShape, element: int, where: Where) -> Part:
    """What a decoder layer keeps for its backward pass: 3 hidden, queries and keys twice, 4 mlp in the compute precision, and 30 bytes
    per hidden unit in float32 (norms, rotary embedding). Fitted to a Llama layer's measured 36 kB (bfloat16) and 55 kB (float32) per
    token; with checkpointing only each layer's input stays, and one layer at a time is computed again."""
    tokens, layers = settings.learner.token_budget, shape.layers
    layer = element * (3 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 4 * shape.mlp) + 30 * shape.hidden
    if settings.learner.gradient_checkpointing:
        kept = element * shape.hidden
        formula, per_token = f"({layers} layers x {kept:,} B + {layer:,} B)", layers * kept + layer
    else:
        formula, per_token = f"{layers} layers x {layer:,} B", layers * layer
    return Part("activations", f"{tokens:,} tokens x {formula}", tokens * per_token, where)


def _logits(settings: RunSettings, shape: ModelShape, where: Where) -> Part:
    tokens = min(settings.learner.logprob_chunk_tokens, settings.learner.token_budget)
    formula = f"{tokens:,} tokens x {shape.vocabulary:,} x 3 (logits, softmax, gradient) x 4 B"
    return Part("logits", formula, tokens * shape.vocabulary * 12, where)


def common_memory(settings: RunSettings, shape: ModelShape, own_cluster: bool) -> tuple[Part, ...]:
    """What belongs to no single actor. A cluster that is already running has processes and an object store of its own."""
    element = precision_bytes(settings.rollout.dtype)
    landed = Part("weights in transit", f"{count(shape.parameters)} x {element} B in shared memory", shape.parameters * element)
    if not own_cluster:
        return (landed,)
    store = Part("object store", "placement.object_store_gib", int(settings.placement.object_store_gib * 2**30))
    return Part("processes", "Ray, driver, coordinator, ledger", RAY_BYTES), store, landed


def checkpoint_size(settings: RunSettings, shape: ModelShape) -> Part:
    """One checkpoint on the disk: DeepSpeed's state, and the weights as a Hugging Face folder."""
    state, folder = OPTIMIZER_BYTES + precision_bytes(settings.learner.precision), precision_bytes(settings.rollout.dtype)
    trained = trained_parameters(settings, shape)
    formula = f"{count(trained)} x {state} B, and {count(shape.parameters)} x {folder} B as a Hugging Face folder"
    return Part("checkpoint", formula, trained * state + shape.parameters * folder)
