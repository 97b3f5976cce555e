"""Checkpoints: whole or absent, continued bitwise, refused by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynalign.configs.errors import CheckpointError
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.algorithm import AlgorithmSettings
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.configs.sections.learner import LearnerSettings, LoraSettings
from dynalign.configs.sections.rollout import RolloutSettings, WorkersSettings
from dynalign.run_folder import layout
from dynalign.run_folder.checkpoint import (
    CheckpointManifest,
    clear_aside,
    content_contradictions,
    contradictions,
    fixed_settings,
    newest_whole,
    prune,
    read_manifest,
    seal,
    verify,
)
from dynalign.run_folder.layout import aside_folder, step_folder

RUN = RunSettings(name="run", model="m", steps=20)


def written(checkpoints: Path, step: int, lineage: int = 1, content: bytes = b"weights") -> Path:
    aside = aside_folder(checkpoints, step, lineage)
    (aside / "deepspeed").mkdir(parents=True)
    (aside / "deepspeed" / "rank0.pt").write_bytes(content)
    (aside / "ledger.msgpack").write_bytes(b"ledger")
    return seal(checkpoints, "run", lineage, step, (4, 7), fixed_settings(RUN, "abc"))


def test_a_sealed_checkpoint_is_whole_and_knows_its_run(tmp_path: Path) -> None:
    folder = written(tmp_path, 10)
    assert folder == tmp_path / "step-000010" == newest_whole(tmp_path)
    manifest = verify(folder)
    assert (manifest.run, manifest.lineage, manifest.step, manifest.group_ids) == ("run", 1, 10, (4, 7))
    assert {name: entry.size_bytes for name, entry in manifest.files.items()} == {
        "deepspeed/rank0.pt": 7,
        "ledger.msgpack": 6,
    }
    assert not aside_folder(tmp_path, 10, 1).exists()


def test_a_checkpoint_that_was_not_sealed_does_not_exist(tmp_path: Path) -> None:
    assert newest_whole(tmp_path) is None
    aside_folder(tmp_path, 20, 1).mkdir()
    (tmp_path / "step-000030").mkdir()  # partly removed: no manifest
    assert newest_whole(tmp_path) is None
    written(tmp_path, 10)
    assert newest_whole(tmp_path) == step_folder(tmp_path, 10)


def test_the_newest_is_the_highest_step_and_not_the_highest_name(tmp_path: Path) -> None:
    for step in (9, 1_000_000, 999_999):
        written(tmp_path, step)
    assert newest_whole(tmp_path) == step_folder(tmp_path, 1_000_000)


def test_a_later_lineage_replaces_the_checkpoint_of_a_step(tmp_path: Path) -> None:
    written(tmp_path, 10)
    assert verify(written(tmp_path, 10, lineage=2, content=b"others")).lineage == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, damage: str) -> None:
    folder = written(tmp_path, 10)
    file = folder / "deepspeed" / "rank0.pt"
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(b"weightz" if damage == "flip" else b"weight")
    with pytest.raises(
        CheckpointError, match=r"deepspeed/rank0.pt is missing or damaged; remove the folder step-000010"
    ):
        verify(folder)


def test_an_unknown_format_is_refused_by_name(tmp_path: Path) -> None:
    file = written(tmp_path, 10) / layout.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 7}))
    with pytest.raises(CheckpointError, match="manifest.json has format 7, this version reads 1"):
        read_manifest(file.parent)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 1}', '{"format": 1, "files": 3}'])
def test_an_unreadable_manifest_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, 10) / layout.MANIFEST
    file.write_text(text)
    with pytest.raises(
        CheckpointError, match="manifest.json cannot be read .* remove the folder step-000010"
    ):
        read_manifest(file.parent)


def names(checkpoints: Path) -> list[int]:
    return sorted(int(folder.name.removeprefix("step-")) for folder in checkpoints.iterdir())


def test_pruning_keeps_the_newest_whole_ones_and_clears_what_is_not_whole(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        written(tmp_path, step)
    step_folder(tmp_path, 40).mkdir()  # partly removed: it may not take the place of a whole one
    assert [folder.name for folder in prune(tmp_path, 2)] == ["step-000040", "step-000010"]
    assert names(tmp_path) == [20, 30]


def test_what_was_left_aside_is_cleared(tmp_path: Path) -> None:
    written(tmp_path, 10)
    aside_folder(tmp_path, 20, 1).mkdir()
    clear_aside(tmp_path)
    assert names(tmp_path) == [10]


def test_pruning_keeps_besides_the_newest_those_with_the_highest_held_out_reward(tmp_path: Path) -> None:
    """Evaluated after 0, 20, 40 and 60 steps: what was written at 30 counts as 20 does, and of equals the
    newer one is kept."""
    for step in (10, 20, 30, 40, 50, 60):
        written(tmp_path, step)
    prune(tmp_path, 1, 2, {0: 1.0, 20: 3.0, 40: 2.0, 60: 9.0})
    assert names(tmp_path) == [20, 30, 60]
    written(tmp_path, 70)
    prune(tmp_path, 1, 2, {0: 1.0, 20: 3.0, 40: 2.0, 60: 9.0})
    assert names(tmp_path) == [30, 60, 70]


def test_a_checkpoint_before_any_evaluation_is_the_worst(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        written(tmp_path, step)
    prune(tmp_path, 1, 1, {15: -2.0})
    assert names(tmp_path) == [20, 30]


def changed(**updates: Any) -> RunSettings:
    return RUN.model_copy(update=updates)


def manifest_of(tmp_path: Path) -> CheckpointManifest:
    return verify(written(tmp_path, 10))


@pytest.mark.parametrize(
    ("other", "place"),
    [
        (changed(model="n"), "model"),
        (changed(seed=1), "seed"),
        (changed(rollout=RolloutSettings(group_size=4)), "rollout.group_size"),
        (changed(rollout=RolloutSettings(prompts_per_step=8)), "rollout.prompts_per_step"),
        (changed(judge=JudgeSettings(rubric="factorized")), "judge"),
        (changed(learner=LearnerSettings(precision="float32")), "learner.precision"),
        (changed(learner=LearnerSettings(zero_stage=2)), "learner.zero_stage"),
        (changed(learner=LearnerSettings(ranks=2)), "learner.ranks"),
        (changed(learner=LearnerSettings(lora=LoraSettings(rank=8))), "learner.lora"),
        (changed(steps=9), "steps"),
    ],
)
def test_a_setting_that_may_not_change_is_named(tmp_path: Path, other: RunSettings, place: str) -> None:
    (mistake,) = contradictions(manifest_of(tmp_path), other, "abc")
    assert mistake.place == place


def test_other_prompts_are_refused(tmp_path: Path) -> None:
    (mistake,) = contradictions(manifest_of(tmp_path), RUN, "xyz")
    assert (mistake.place, mistake.value) == ("prompts", "xyz")


def test_more_steps_and_another_learning_rate_are_fine(tmp_path: Path) -> None:
    other = changed(
        steps=500,
        learner=LearnerSettings(learning_rate=1e-5),
        rollout=RolloutSettings(workers=WorkersSettings(min=4, max=4)),
    )
    assert contradictions(manifest_of(tmp_path), other, "abc") == []
    assert contradictions(manifest_of(tmp_path), changed(steps=10), "abc") == []


SHORT_WORDS = "dynalign.rollout.judges.reward_functions:short_words"


def of_an_earlier_version(folder: Path, **judge: object) -> CheckpointManifest:
    """A manifest as an earlier version wrote it: fewer settings of the judge, and other values for some of
    them."""
    run = changed(judge=JudgeSettings(kind="function", function=SHORT_WORDS))
    manifest = read_manifest(folder)
    settings = fixed_settings(run, "abc")
    settings["judge"] = {"kind": "function", **judge}
    return replace(manifest, settings=settings)


def test_a_checkpoint_with_the_former_name_of_a_reward_function_is_continued(tmp_path: Path) -> None:
    former = of_an_earlier_version(written(tmp_path, 10), function="rollout.reward_functions:short_words")
    run = changed(judge=JudgeSettings(kind="function", function=SHORT_WORDS))
    assert contradictions(former, run, "abc") == []
    other = changed(judge=JudgeSettings(kind="function", function="rollout.reward_functions:short_question"))
    assert [mistake.place for mistake in contradictions(former, other, "abc")] == ["judge"]


def test_a_setting_of_the_judge_that_a_manifest_does_not_have_counts_as_its_default(tmp_path: Path) -> None:
    former = of_an_earlier_version(written(tmp_path, 10), function=SHORT_WORDS)
    judge = JudgeSettings(kind="function", function=SHORT_WORDS)
    assert contradictions(former, changed(judge=judge), "abc") == []
    other = judge.model_copy(update={"max_rationale_tokens": 500})
    assert [mistake.place for mistake in contradictions(former, changed(judge=other), "abc")] == ["judge"]


def test_what_the_learner_reads_and_how_it_weighs_it_stays_also_where_a_manifest_does_not_say_it(
    tmp_path: Path,
) -> None:
    now = manifest_of(tmp_path)
    later = ("algorithm.system_prompt", "algorithm.context_taper")
    former = replace(now, settings={key: now.settings[key] for key in now.settings if key not in later})
    kept = changed(algorithm=AlgorithmSettings(system_prompt="kept"))
    tapered = changed(algorithm=AlgorithmSettings(context_taper=True))
    weighted = changed(judge=JudgeSettings(consistency_weight=True))
    for manifest in (former, now):
        assert contradictions(manifest, RUN, "abc") == []
        found = [contradictions(manifest, other, "abc") for other in (kept, tapered, weighted)]
        assert [[each.place for each in mistakes] for mistakes in found] == [
            [later[0]],
            [later[1]],
            ["judge"],
        ]


def test_a_checkpoint_with_hashes_is_continued_wherever_its_files_lie(tmp_path: Path) -> None:
    settings = fixed_settings(RUN, "abc", {"model: weights": "1", "judge.values: rubric": "2"})
    manifest = replace(manifest_of(tmp_path), settings=settings)
    other = changed(model="elsewhere/m/", judge=JudgeSettings(values="elsewhere"))
    assert contradictions(manifest, other, "abc") == []
    assert content_contradictions(manifest, other, {"model: weights": "1", "judge.values: rubric": "2"}) == []
    found = content_contradictions(manifest, other, {"model: weights": "0", "judge.values: rubric": "0"})
    assert [(mistake.place, mistake.value) for mistake in found] == [
        ("model", "elsewhere/m/"),
        ("judge.values", "elsewhere"),
    ]


def test_without_hashes_another_spelling_of_the_same_folder_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    settings = fixed_settings(changed(model=str(tmp_path / "m")), "abc")
    manifest = replace(manifest_of(tmp_path), settings=settings)
    for spelling in ("m", f"{tmp_path}/m/", "link", "./m"):
        assert contradictions(manifest, changed(model=spelling), "abc") == []
    (mistake,) = contradictions(manifest, changed(model="other"), "abc")
    assert mistake.place == "model"
    assert content_contradictions(manifest, RUN, {"model: weights": "1"}) == []


def test_all_contradictions_are_reported_together(tmp_path: Path) -> None:
    other = changed(seed=3, model="n", steps=2)
    assert [mistake.place for mistake in contradictions(manifest_of(tmp_path), other, "abc")] == [
        "model",
        "seed",
        "steps",
    ]
