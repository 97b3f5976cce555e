"""What a run takes of the disk, by hand and against records as they are written."""

from dataclasses import replace

import pytest

from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.launch.plan.disk import (
    candidate_bytes,
    checkpoint_size,
    checkpoints_kept,
    disk_parts,
    mirror_part,
)
from dynalign.rollout.arrow_schema import encode, to_batch
from dynalign.rollout.records import Group, Verdict
from tests.launch.models.test_shape import SMOL
from tests.worlds.tiny_groups import candidate, group


def run(*overrides: str) -> RunSettings:
    return load_run("quickstart", overrides).settings


def test_a_checkpoint_is_the_optimizer_the_weights_and_a_model_folder() -> None:
    assert checkpoint_size(run(), SMOL).size_bytes == 134_515_008 * (12 + 2 + 2)


def test_a_checkpoint_of_adapters_still_holds_the_whole_model() -> None:
    """q_proj: 30 layers x 8 x (576 + 576) parameters are trained."""
    trained = 30 * 8 * 1152
    assert (
        checkpoint_size(run("learner.lora={rank: 8, targets: [q_proj]}"), SMOL).size_bytes
        == trained * 14 + 134_515_008 * 2
    )


def test_the_disk_holds_all_that_is_kept_and_one_more_being_written() -> None:
    settings = run("checkpoint.keep_last=3", "checkpoint.keep_best=2", "heldout.prompts=8")
    assert checkpoints_kept(settings) == 6
    (kept,) = (part for part in disk_parts(settings, SMOL) if part.name == "checkpoints")
    assert kept.size_bytes == 6 * 134_515_008 * 16
    assert "keep_last 3 + keep_best 2 + 1 being written" in kept.formula


def test_a_mirror_holds_as_many_checkpoints_as_the_disk_and_takes_none_of_it() -> None:
    settings = run("checkpoint.mirror=s3://bucket/runs?region=here", "checkpoint.keep_last=1")
    mirror = mirror_part(settings, SMOL)
    assert mirror is not None
    assert mirror.size_bytes == 2 * 134_515_008 * 16
    assert mirror.formula.endswith("in s3://bucket/runs")
    assert [part.name for part in disk_parts(settings, SMOL)] == [
        part.name for part in disk_parts(run(), SMOL)
    ]
    assert mirror_part(run(), SMOL) is None


@pytest.mark.parametrize(
    ("overrides", "steps"), [([], 8), (["experience.keep_steps=3"], 3), (["experience.keep_steps=0"], 0)]
)
def test_experience_is_kept_for_as_many_steps_as_are_asked_for(overrides: list[str], steps: int) -> None:
    """4 prompts x 8 candidates, each of 512 context tokens (8 B) and 48 completion tokens (12 B, and 4 B for
    the one candidate in eight that is probed): 5,696 B."""
    settings = run(*overrides, "steps=8", "prompts.max_tokens=512", "rollout.mismatch_fraction=0")
    (experience,) = (part for part in disk_parts(settings, SMOL) if part.name == "experience")
    assert experience.size_bytes == steps * 32 * (512 * 8 + 48 * 12 + 48 * 4 // 8 + 1000)


@pytest.mark.parametrize(
    "overrides",
    [[], ["rollout.record_behaviour=true"], ["judge.scorer=sampled", "judge.max_rationale_tokens=200"]],
)
def test_a_step_s_records_are_as_large_as_planned(overrides: list[str]) -> None:
    """A group of eight at full length, four characters a token, as it is written."""
    settings = run(*overrides, "prompts.max_tokens=512", "rollout.max_completion_tokens=400")
    recorded = [-1.0] * 400 if settings.rollout.record_behaviour else None
    text = "word" * 200 if settings.judge.scorer == "sampled" else None
    verdict = Verdict(2.0, "parsed", digit_probs_6=None if text else (0.1,) * 6, text=text, digit_mass=0.8)
    full = [candidate(range(400), 2.0, recorded, verdict=verdict) for _ in range(8)]
    long = group(1, range(512), full)
    written = encode([to_batch(with_texts(long))])
    assert 0.85 < len(written) / (8 * candidate_bytes(settings)) < 1.05


def with_texts(one: Group) -> Group:
    return replace(
        one,
        prompt="word" * 512,
        candidates_G=tuple(replace(each, text="word" * 400) for each in one.candidates_G),
    )
