"""Section `learner`: the optimizer, its parallelism and its memory."""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import NotNegative, Positive, Section


class LoraSettings(Section):
    """Low-rank adapters (LoRA, arXiv 2106.09685), by peft.

    Example: `{rank: 16, alpha: 32.0, targets: [q_proj, v_proj]}`.
    """

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the adapters."""
    alpha: Annotated[float, Field(gt=0.0, le=4096.0)] = 32.0
    """Scale: the update of a layer is (alpha / rank) B A."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Names of the linear layers that carry adapters."""


class LearnerSettings(Section):
    """The DeepSpeed learner.

    Example: `{ranks: 8, zero_stage: 3, learning_rate: 1e-6, warmup_steps: 10, token_budget: 8192}`.
    """

    ranks: Annotated[int, Field(ge=1, le=4096)] = 1
    """DeepSpeed ranks (data parallel)."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """ZeRO stage (arXiv 1910.02054), which partitions over the ranks: 0 nothing, 1 the optimizer's state, 2
    also the gradients, 3 also the parameters."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of forward and backward passes; master weights and Adam's moments are float32 either way."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-6
    """Peak learning rate."""
    warmup_steps: NotNegative = 0
    """Steps of linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Decay of the learning rate after the warm-up, to 0 at `steps`."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Decoupled weight decay (AdamW)."""
    adam_beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Decay of Adam's first moment."""
    adam_beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """Decay of Adam's second moment."""
    grad_clip: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """Largest global gradient norm; a larger one is scaled down to it."""
    token_budget: Annotated[int, Field(ge=16, le=1_048_576)] = 2048
    """Tokens per packed row (one micro-batch); bounds activation memory."""
    logprob_chunk_tokens: Annotated[int, Field(ge=16, le=65_536)] = 256
    """Completion tokens whose float32 logits are in memory at one time."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about 20 % slower, 40 % less memory."""
    attention: Literal["sdpa", "varlen"] = "sdpa"
    """How attention over a packed row is computed: `sdpa` by torch's fused kernel for each prompt and each
    completion, `varlen` by flash attention once for the whole row, in fewer calls. `varlen` needs a GPU of
    compute capability 8.0 or more and `precision` bfloat16, and is tried on that GPU before training. A model
    with attention sinks, or with heads wider than 256 or no multiple of 8, keeps `sdpa`: `dynalign check`
    says so."""
    lora: LoraSettings | None = None
    """Train low-rank adapters; null: train all weights."""
    threads: Positive = 1
    """CPU threads per rank."""
    spare_cores: bool = True
    """On a CPU: compute weight gradients in one more thread, on cores that are idle at the moment. Not used
    with `gradient_checkpointing` or ZeRO 3. Set it to false where a quota counts processor time."""
