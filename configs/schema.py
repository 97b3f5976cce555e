"""Every setting of a run, declared once: frozen, unknown keys refused, unit and range in each field's docstring.

What the method is stands here; how a run is operated (devices, deadlines, supervision, disk) in `operation.py`; cross-field rules in
`rules.py`; reading, overrides and origins in `load.py`.
"""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Fraction, NotNegative, Positive, Section
from dynalign.configs.sections.operation import (
    CheckpointSettings,
    DeadlineSettings,
    ExperienceSettings,
    MetricsSettings,
    PlacementSettings,
    SupervisionSettings,
    WeightsSettings,
)


class PromptsSettings(Section):
    """Where the tasks come from."""

    source: str = "builtin"
    """`builtin` (shipped with dynalign), a .jsonl, .parquet or .arrow file, or `hub:<owner>/<name>` (a `datasets` id)."""
    max_tokens: Positive = 512
    """Longest prompt accepted, in tokens of the model's tokenizer, system prompt and template included."""


class WorkersSettings(Section):
    """How many rollout workers. `rollout.workers=3` is short for min = max = 3: a fixed number, which `dynalign scale` can change."""

    min: Annotated[int, Field(ge=1, le=900)] = 1
    """Workers at the start, and the fewest."""
    max: Annotated[int, Field(ge=1, le=900)] = 1
    """The most workers. The ledger answers about a thousand waiting calls at one time, so 900."""


class RolloutSettings(Section):
    """The workers that generate and score candidates."""

    engine: Literal["vllm", "deterministic"] = "vllm"
    """`vllm` is the engine; `deterministic` is a small engine for tests, chaos and scale runs: seeded text, no model."""
    workers: WorkersSettings = WorkersSettings()
    """Rollout workers, each with one engine: a number, or `{min, max}` to let the coordinator size the pool itself."""
    tensor_parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that one engine is split over."""
    group_size: Annotated[int, Field(ge=2, le=1024)] = 8
    """Candidates per prompt (G). One candidate has no group to be compared with, so 1 is refused."""
    prompts_per_step: Positive = 4
    """Groups trained per optimizer step (P)."""
    groups_in_flight: Positive = 2
    """Groups that one worker generates and scores at the same time."""
    max_completion_tokens: Annotated[int, Field(ge=1, le=131_072)] = 64
    """Longest completion, in tokens; longer ones are cut and count as truncated."""
    temperature: Annotated[float, Field(ge=1.0, le=1.0)] = 1.0
    """Sampling temperature. Only 1: truncated or tempered sampling biases the importance ratio."""
    top_p: Annotated[float, Field(ge=1.0, le=1.0)] = 1.0
    """Nucleus mass. Only 1, for the same reason."""
    top_k: Literal[-1] = -1
    """Top-k cut. Only -1 (off), for the same reason."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of the engine's weights and of every weight version pushed to it."""
    kv_cache_gib: Annotated[float, Field(gt=0.0, le=1024.0)] = 1.0
    """Key-value cache per engine, in GiB."""
    block_size: Literal[16, 32, 64, 128] = 32
    """Tokens per key-value block; smaller blocks make the prefix cache finer."""
    max_sequences: Positive = 64
    """Sequences that the engine batches at once."""
    eager: bool = True
    """Run without compilation: on a CPU compiling costs about 90 s at each start and gains little at 32 sequences."""
    record_behaviour: bool = False
    """Also record the engine's log-probabilities in the learning context for every candidate, which corrects the engine-learner
    mismatch in the loss and costs one prefill per candidate."""
    gap_probes: NotNegative = 1
    """Candidates per group whose internalization gap is measured (two contexts, one version, one engine)."""
    engine_threads: Positive = 1
    """CPU threads per engine; each engine is pinned to that many cores where the machine has enough of them."""


class JudgeSettings(Section):
    """Who scores, and how."""

    kind: Literal["self", "function"] = "self"
    """`self`: the live policy reads the rubric and scores; `function`: a Python callable (verifiable rewards)."""
    function: str | None = None
    """`package.module:callable` for `kind: function`; called as f(prompt, completion) -> float in 0..5."""
    scorer: Literal["expected", "sampled"] = "expected"
    """`expected`: one constrained token, score = sum of k q(k) over the six digits; `sampled`: a rationale, then an integer."""
    rubric: Literal["unified", "factorized"] = "unified"
    """One holistic score, or one score for each of the four aspects."""
    aggregate: Literal["mean", "min", "geometric_mean"] = "mean"
    """How factorized scores become one."""
    samples: Annotated[int, Field(ge=1, le=16)] = 1
    """Sampled verdicts averaged per candidate; only `scorer: sampled`."""
    min_digit_mass: Fraction = 0.1
    """Raw probability of the six digits below which an `expected` verdict is unparsed: the judge did not understand."""
    max_rationale_tokens: Annotated[int, Field(ge=16, le=8192)] = 96
    """Tokens for a sampled verdict, rationale and score together."""
    noise_fraction: Fraction = 0.0625
    """Share of candidates that are scored again, in another batch and without cached key-values, to measure the judge's own noise.
    A second score costs one whole prefill: about a second on a CPU core."""
    values: str | None = None
    """Folder with your own value definition and rubrics; default: the shipped Collective Agency texts."""


class AlgorithmSettings(Section):
    """GRPO and the ledger's bounds."""

    advantage_scale: Literal["group", "batch", "none"] = "group"
    """Divide centred scores by the group's std, the batch's std, or nothing (Dr. GRPO)."""
    clip_low: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Lower clip range of the ratio: 1 - clip_low."""
    clip_high: Annotated[float, Field(gt=0.0, le=10.0)] = 0.28
    """Upper clip range of the ratio: 1 + clip_high."""
    kl_coef: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Weight of the KL to the initial policy (k2 as loss, reported as k3)."""
    loss_aggregation: Literal["token_mean", "sequence_mean", "fixed_length"] = "token_mean"
    """How per-token terms become the step's loss; always over all ranks' candidates together."""
    minibatches: Positive = 1
    """Optimizer steps per batch; 1 is on-policy within the step (ratio 1)."""
    max_staleness: Annotated[int, Field(ge=0, le=64)] = 1
    """Oldest version, in optimizer steps, that any trained token may carry; 0 is synchronous."""
    max_refill: Annotated[float, Field(ge=0.0, le=100.0)] = 4.0
    """Groups without signal replaced per step, as a multiple of prompts_per_step; beyond it `on_no_signal` decides."""
    on_no_signal: Literal["warn", "pause", "stop"] = "warn"
    """When a step finds no signal: train on what is there (scaled), pause the run, or stop it."""


class LoraSettings(Section):
    """Low-rank adapters (peft)."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the adapters."""
    alpha: Annotated[float, Field(gt=0.0, le=4096.0)] = 32.0
    """Scale: the update is alpha / rank times B A."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Names of the linear layers that carry adapters."""


class LearnerSettings(Section):
    """The DeepSpeed learner."""

    ranks: Annotated[int, Field(ge=1, le=4096)] = 1
    """DeepSpeed ranks (data parallel)."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """ZeRO stage: what is partitioned over the ranks (nothing, optimizer, gradients, parameters)."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Compute precision; masters and moments are float32 either way."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-6
    """Peak learning rate."""
    warmup_steps: NotNegative = 0
    """Steps of linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Decay after the warm-up, to 0 at `steps`."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Decoupled weight decay (AdamW)."""
    adam_beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Decay of the first moment."""
    adam_beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """Decay of the second moment."""
    grad_clip: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """Largest global gradient norm."""
    token_budget: Annotated[int, Field(ge=16, le=1_048_576)] = 2048
    """Tokens per packed row (one micro-batch); bounds activation memory."""
    logprob_chunk_tokens: Annotated[int, Field(ge=16, le=65_536)] = 256
    """Completion tokens whose float32 logits exist at one time."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about 20 % slower, 40 % less memory."""
    lora: LoraSettings | None = None
    """Train adapters instead of all weights."""
    threads: Positive = 1
    """CPU threads per rank."""
    spare_cores: bool = True
    """On a CPU: a further thread computes weight gradients on cores that nothing else uses at the moment. Not with
    `gradient_checkpointing` or ZeRO 3; false where a quota counts processor time."""


class HeldoutSettings(Section):
    """Evaluation on held-out prompts with fixed seeds, by the live judge."""

    prompts: NotNegative = 32
    """Held-out prompts per evaluation; 0 switches it off."""
    every_steps: Positive = 5
    """Steps between evaluations; the first one is before step 1, the last after the last step."""
    prompted: bool = True
    """Also evaluate with the system prompt (what the overfitting alarm compares training with)."""


class ConvergenceSettings(Section):
    """Stop when the held-out reward no longer rises."""

    window: Annotated[int, Field(ge=2, le=1000)] = 5
    """Evaluations looked back on."""
    min_delta: Annotated[float, Field(ge=0.0, le=5.0)] = 0.01
    """Smallest rise over the window that counts."""


class RunSettings(Section):
    """One run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    """Name of the run, its folder and its coordinator; default: the config file's name."""
    model: str
    """`smollm2-135m-instruct` (made by `dynalign model fetch`), a Hugging Face folder, or a hub id."""
    runs: str = "runs"
    """Folder of run folders; absolute, or relative to where the command runs. All nodes must reach it."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of prompt order, sampling and initialization."""
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")] | None = None
    """The day that chat templates print (ISO), fixed for the whole run; null: the day on which the run began."""
    steps: Positive = 100
    """Optimizer steps."""
    resume: Literal["auto", "never"] = "auto"
    """`auto` continues an interrupted run of this name; `never` refuses an existing run folder."""
    tensorboard: bool = True
    """Also write TensorBoard event files."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe of its own lines that the driver and the actors log; libraries log warnings and errors only."""
    prompts: PromptsSettings = PromptsSettings()
    rollout: RolloutSettings = RolloutSettings()
    judge: JudgeSettings = JudgeSettings()
    algorithm: AlgorithmSettings = AlgorithmSettings()
    learner: LearnerSettings = LearnerSettings()
    weights: WeightsSettings = WeightsSettings()
    heldout: HeldoutSettings = HeldoutSettings()
    convergence: ConvergenceSettings | None = None
    """Stop before `steps` on convergence; null: never."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    deadlines: DeadlineSettings = DeadlineSettings()
    experience: ExperienceSettings = ExperienceSettings()
    placement: PlacementSettings = PlacementSettings()
    supervision: SupervisionSettings = SupervisionSettings()
    metrics: MetricsSettings = MetricsSettings()
