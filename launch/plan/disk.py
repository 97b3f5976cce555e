"""What a run takes of the disk under its run folder, part by part."""

from dynalign.configs.schema import RunSettings
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
_ROW_BYTES = 500
"""A candidate's names, hashes, digits, times and offsets in THE Arrow schema."""


def checkpoint_size(settings: RunSettings, shape: ModelShape) -> Part:
    """One checkpoint: DeepSpeed's state of what is trained, and the whole policy as a Hugging Face folder in bfloat16, adapters merged."""
    state, trained = (
        OPTIMIZER_BYTES + precision_bytes(settings.learner.precision),
        trained_parameters(settings, shape),
    )
    formula = f"{count(trained)} x {state} B, and {count(shape.parameters)} x 2 B as a Hugging Face folder"
    return Part("checkpoint", formula, trained * state + shape.parameters * 2, "disk")


def checkpoints_kept(settings: RunSettings) -> int:
    """Checkpoints on the disk at one time: those that are kept, and the one being written."""
    return settings.checkpoint.keep_last + settings.checkpoint.keep_best + 1


def mirror_part(settings: RunSettings, shape: ModelShape) -> Part | None:
    """What `checkpoint.mirror` holds at its most, which is not on this disk; None for a run without one."""
    if settings.checkpoint.mirror is None:
        return None
    checkpoint, held = checkpoint_size(settings, shape), checkpoints_kept(settings)
    place = settings.checkpoint.mirror.partition("?")[0]
    return Part(
        "mirror",
        f"{held} x {size(checkpoint.size_bytes)}, the same checkpoints, in {place}",
        held * checkpoint.size_bytes,
        "disk",
    )


def candidate_bytes(settings: RunSettings) -> int:
    """One row of THE Arrow schema, at most: the plain context and its text, and per completion token id, text, log-probabilities."""
    per_token = 4 + 4 + _TEXT_BYTES + (4 if settings.rollout.record_behaviour else 0)
    judge = settings.judge
    verdict = (
        judge.samples * judge.max_rationale_tokens * _TEXT_BYTES
        if judge.kind == "self" and judge.scorer == "sampled"
        else 0
    )
    return (
        settings.prompts.max_tokens * (4 + _TEXT_BYTES)
        + settings.rollout.max_completion_tokens * per_token
        + verdict
        + _ROW_BYTES
    )


def disk_parts(settings: RunSettings, shape: ModelShape) -> tuple[Part, ...]:
    """Everything of size under the run folder, at its most."""
    checkpoint, kept = checkpoint_size(settings, shape), checkpoints_kept(settings)
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
    return (
        Part("checkpoints", formula, kept * checkpoint.size_bytes, "disk"),
        Part("experience", f"{steps} steps x {size(step_bytes)}, at most", steps * step_bytes, "disk"),
        Part(
            "spool",
            f"{between} steps x {size(step_bytes)}, at most: since a checkpoint, and under way",
            between * step_bytes,
            "disk",
        ),
    )
