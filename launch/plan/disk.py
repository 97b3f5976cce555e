"""What a run needs of the disk under its run folder, part by part."""

from math import ceil

from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.launch.models.shape import ModelShape
from dynalign.launch.plan.memory import (
    OPTIMIZER_BYTES,
    Part,
    count,
    precision_bytes,
    size,
    trained_parameters,
)

_TEXT_BYTES = 4
"""A token's text: English has about four characters a token."""
_ROW_BYTES = 1000
"""A candidate's names, hashes, rules, digits, times and offsets in the Arrow schema."""
_OPINION_BYTES = 200
"""Names, score, status, distribution and offsets of one opinion, without its text."""
_ASPECTS = 4
"""Of the shipped value."""


def checkpoint_size(settings: RunSettings, shape: ModelShape) -> Part:
    """One checkpoint: DeepSpeed's state of what is trained, and the policy as a Hugging Face folder.

    The folder holds all weights in bfloat16, with adapters merged.
    """
    state = OPTIMIZER_BYTES + precision_bytes(settings.learner.precision)
    trained = trained_parameters(settings, shape)
    formula = f"{count(trained)} x {state} B, and {count(shape.parameters)} x 2 B as a Hugging Face folder"
    return Part("checkpoint", formula, trained * state + shape.parameters * 2, "disk")


def checkpoints_kept(settings: RunSettings) -> int:
    """Checkpoints on the disk at one time: those that are kept, and the one being written."""
    return settings.checkpoint.keep_last + settings.checkpoint.keep_best + 1


def mirror_part(settings: RunSettings, shape: ModelShape) -> Part | None:
    """The most that `checkpoint.mirror` holds, which is not on this disk; None for a run without a mirror."""
    if settings.checkpoint.mirror is None:
        return None
    checkpoint = checkpoint_size(settings, shape)
    held = checkpoints_kept(settings)
    # What follows "?" configures the client, not the address.
    address = settings.checkpoint.mirror.partition("?")[0]
    formula = f"{held} x {size(checkpoint.size_bytes)}, the same checkpoints, in {address}"
    return Part("mirror", formula, held * checkpoint.size_bytes, "disk")


def candidate_bytes(settings: RunSettings) -> int:
    """The most that one row of the Arrow schema takes.

    It holds the plain context with its text, and per completion token an id, text and log-probabilities,
    the mean over the candidates of a group.
    """
    per_token = 4 + 4 + _TEXT_BYTES + 4 * _share_recorded(settings)
    return (
        settings.prompts.max_tokens * (4 + _TEXT_BYTES)
        + ceil(settings.rollout.max_completion_tokens * per_token)
        + verdict_bytes(settings.judge)
        + _ROW_BYTES
    )


def _share_recorded(settings: RunSettings) -> float:
    """Share of the candidates whose engine's log-probabilities in the learning context are kept."""
    rollout = settings.rollout
    if rollout.record_behaviour:
        return 1.0
    probed = min(1.0, rollout.gap_probes / rollout.group_size)
    return probed + (1.0 - probed) * rollout.mismatch_fraction


def verdict_bytes(judge: JudgeSettings) -> int:
    """The most that the texts and opinions of one candidate's verdict take, probes and second scores
    included, the mean over the candidates. Of a stance the record has both the answer and its reason."""
    stances = len(judge.stances) * (judge.rounds + 1)
    seconds = len(judge.probes) + (0 if judge.kind == "panel" else len(judge.veto))
    asked = (stances or max(1, len(judge.scorers))) + seconds
    aspects = _ASPECTS if judge.rubric == "factorized" or judge.probe_factorized else 1
    reasoned = judge.kind != "function" and (judge.scorer == "sampled" or judge.kind == "ranked")
    text = judge.samples * judge.max_rationale_tokens * _TEXT_BYTES if reasoned else 0
    opinions = asked * aspects * judge.samples if asked * aspects > 1 or judge.kind == "ranked" else 0
    texts = asked * aspects * text * (2 if judge.kind == "panel" else 1)
    return ceil((texts + opinions * _OPINION_BYTES) * (1.0 + judge.noise_fraction))


def disk_parts(settings: RunSettings, shape: ModelShape) -> tuple[Part, ...]:
    """The most that the large parts of the run folder take: checkpoints, experience, spool."""
    checkpoint = checkpoint_size(settings, shape)
    kept = checkpoints_kept(settings)
    names = [
        f"keep_last {settings.checkpoint.keep_last}",
        f"keep_best {settings.checkpoint.keep_best}",
        "1 being written",
    ]
    formula = f"{kept} ({' + '.join(names)}) x {size(checkpoint.size_bytes)}: {checkpoint.formula}"
    step_bytes = settings.rollout.prompts_per_step * settings.rollout.group_size * candidate_bytes(settings)
    keep = settings.experience.keep_steps
    steps = settings.steps if keep is None else min(keep, settings.steps)
    between = settings.checkpoint.every_steps + settings.algorithm.max_staleness + 1
    spool = f"{between} steps x {size(step_bytes)}, at most: since a checkpoint, and under way"
    return (
        Part("checkpoints", formula, kept * checkpoint.size_bytes, "disk"),
        Part("experience", f"{steps} steps x {size(step_bytes)}, at most", steps * step_bytes, "disk"),
        Part("spool", spool, between * step_bytes, "disk"),
    )
