"""`dynalign replay --step`: a step as it was recorded agrees, and whatever was changed is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dynalign.configs.errors import RecordError, UserError
from dynalign.configs.schema import RunSettings
from dynalign.launch.commands.replay_scores import check_step
from dynalign.learner import experience
from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.rollout.arrow_schema import decode, encode, to_batch, to_group
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.ledger.log import LedgerLog
from dynalign.rollout.ledger.values import Commit, LineageStart
from dynalign.rollout.records import Group
from dynalign.run_folder import layout, value_texts
from dynalign.run_folder.checkpoint import fixed_settings, seal
from dynalign.run_folder.content import model_hash
from dynalign.run_folder.layout import aside_folder
from tests.rollout.judges.conftest import contexts as contexts
from tests.worlds.golden_formats import GOLDEN
from tests.worlds.judged_groups import made, maker
from tests.worlds.scripted_askers import asked, sure

CONTENT = {"model: configuration": "1", "model: weights": "2", "judge.values: definition": "3"}
JUDGE = {"probes": ("frozen",), "probe_fraction": 1.0, "consistency_weight": True, "noise_fraction": 0.5}


@pytest.fixture
def folder(tmp_path: Path, contexts: Contexts) -> Path:
    """A run folder after its first step, weighted by the judge's consistency."""
    by = maker(contexts, asked(frozen=lambda question: sure((question.seed or 0) % 6)), **JUDGE)
    by.model_hash = model_hash(CONTENT)
    groups = [group for group in made(by, range(6)) if group.withheld_reason is None]
    kept_step(tmp_path, groups)
    value_texts.keep(tmp_path, by.texts.definition_hash, by.texts.definition_parts)
    value_texts.keep(tmp_path, by.texts.rubric_hash, by.texts.rubric_parts)
    (tmp_path / layout.CONFIG).write_text(yaml.safe_dump(by.run.model_dump(mode="json")))
    (aside_folder(tmp_path / layout.CHECKPOINTS, 1, 1) / "hf").mkdir(parents=True)
    seal(tmp_path / layout.CHECKPOINTS, "r", 1, 1, (0,), fixed_settings(by.run, "p", CONTENT))
    return tmp_path


def kept_step(folder: Path, groups: list[Group]) -> None:
    payloads = [encode([to_batch(group)]) for group in groups]
    decoded = decode_groups(payloads, [f"group {index}" for index in range(len(groups))])
    (folder / layout.EXPERIENCE).mkdir(exist_ok=True)
    batch = TrainingBatch.of(decoded, "group", by_consistency=True)
    experience.write_step(folder / layout.EXPERIENCE, 1, batch)


def rewritten(folder: Path, change: Callable[[Group], Group]) -> None:
    """The record of step 1 with another first group, and the advantages that stood there."""
    file = layout.experience_file(folder / layout.EXPERIENCE, 1)
    batches = decode(file.read_bytes(), file.name)
    first = to_batch(change(to_group(batches[0])), batches[0].column("advantage").to_pylist())
    file.write_bytes(encode([first, *batches[1:]]))


def test_a_step_as_it_was_recorded_agrees(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_step(folder, 1) == 0
    printed = capsys.readouterr().out
    assert printed == ("step 1: 6 groups, 48 of 48 scores and 48 advantages derived again; nothing differs\n")


def test_groups_that_were_cut_off_between_two_records_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = layout.experience_file(folder / layout.EXPERIENCE, 1)
    batches = decode(file.read_bytes(), file.name)
    trained = tuple(to_group(batch).group_id for batch in batches)
    log = LedgerLog(folder / layout.LEDGER_LOG)
    log.append(LineageStart(1, 0, 0), durable=False)
    log.append(Commit(1, 1, trained, ()), durable=True)
    log.close()
    assert check_step(folder, 1) == 0
    file.write_bytes(encode(batches[:-1]))
    assert check_step(folder, 1) == 1
    assert f"group {trained[-1]}: recorded 0 times, trained 1 times by " in capsys.readouterr().out
    file.write_bytes(encode([]))
    with pytest.raises(RecordError, match="holds no group"):
        check_step(folder, 1)


def test_a_changed_score_is_named_with_what_follows_from_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def better(group: Group) -> Group:
        first, *rest = group.candidates_G
        return replace(group, candidates_G=(replace(first, verdict=replace(first.verdict, score=5.0)), *rest))

    rewritten(folder, better)
    assert check_step(folder, 1) == 1
    printed = capsys.readouterr().out
    assert "group 0 candidate 0: score: recorded 5, derived" in printed
    assert "group 0 candidate 1: advantage: recorded" in printed
    assert "group 1" not in printed


def test_another_model_another_rule_and_other_texts_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(folder, lambda group: replace(group, model_hash="f" * 32))
    config = folder / layout.CONFIG
    settings = yaml.safe_load(config.read_text())
    settings["judge"]["min_digit_mass"] = 0.5
    config.write_text(yaml.safe_dump(settings))
    file = next((folder / layout.VALUE_TEXTS).iterdir())
    file.write_text(file.read_text().replace("Collective", "Selective").replace("grade", "mark"))
    assert check_step(folder, 1) == 1
    printed = capsys.readouterr().out
    assert f"model: recorded {'f' * 32}, the checkpoint step-000001 was made with" in printed
    assert "group 0: judge.min_digit_mass: recorded 0.1, derived 0.5 by config.yaml" in printed
    assert f"{file}: recorded {file.stem}, the texts there have" in printed


def test_a_run_that_keeps_no_texts_is_compared_with_those_of_now(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (folder / layout.VALUE_TEXTS).iterdir():
        file.unlink()
    assert check_step(folder, 1) == 0
    rewritten(folder, lambda group: replace(group, rubric_hash="r" * 16))
    assert check_step(folder, 1) == 1
    assert "rubric: recorded " in capsys.readouterr().out


def test_a_step_of_the_format_before_is_checked_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunSettings(name="run", model="m")
    (tmp_path / layout.CONFIG).write_text(yaml.safe_dump(run.model_dump(mode="json")))
    (tmp_path / layout.EXPERIENCE).mkdir()
    file = layout.experience_file(tmp_path / layout.EXPERIENCE, 4)
    file.write_bytes((GOLDEN / "step.arrow.2").read_bytes())
    assert check_step(tmp_path, 4) == 1  # the golden file's figures are made up
    printed = capsys.readouterr().out
    assert "rubric: recorded rrrrrrrrrrrrrrrr, the texts there have" in printed
    assert "group 7 candidate 0: advantage: recorded 0.5, derived 0" in printed


def test_a_step_that_is_not_kept_is_refused_with_those_that_are(folder: Path) -> None:
    with pytest.raises(UserError, match="--step = 9: .* has no record of this step; name one from 1 to 1"):
        check_step(folder, 9)
