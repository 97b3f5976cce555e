"""A run of two steps, continued to four, with everything real but the model: a tiny random one.

Ray and DeepSpeed start twice. vLLM, the slowest to start, starts once: the first half runs on the
deterministic engine, and vLLM then loads what the learner has trained.
"""

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from dynalign.endpoint.budget import totals_in
from dynalign.launch.commands.replay_scores import check_step
from dynalign.learner.experience import read_step
from dynalign.rollout.judges.value_texts import texts_hash
from dynalign.rollout.ledger.log import committed, read
from dynalign.run_folder import value_texts, withheld_groups
from dynalign.run_folder.checkpoint import newest_whole, verify
from dynalign.run_folder.metrics import read_heldout, read_metrics
from tests.worlds.chat_models import tiny_chat_model
from tests.worlds.command import Ended, train
from tests.worlds.scripted_endpoint import MODEL, judging, scripted_endpoint
from tests.worlds.tiny_run import PROMPTS_PER_STEP, REAL


@dataclass(frozen=True)
class Whole:
    """The run folder after both halves, and how each command ended."""

    folder: Path
    model: Path
    first: Ended
    """Two steps."""
    again: Ended
    """The same command once more."""
    longer: Ended
    """Four steps."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    model = tiny_chat_model(folder / "model")
    file = folder / "tiny.yaml"
    with scripted_endpoint(act=judging) as server:
        beside = {"address": server.address, "model": MODEL, "input_price": 1.0}
        judge = REAL["judge"] | {
            "probes": ["beside", "frozen"],
            "probe_fraction": 1.0,
            "endpoints": {"beside": beside},
            "pool": {"engine": "deterministic"},
        }
        file.write_text(yaml.safe_dump(REAL | {"model": str(model), "judge": judge}))
        first = train(file, "rollout.engine=deterministic")
        again = train(file, "rollout.engine=deterministic")
        longer = train(file, "steps=4")
    return Whole(folder / "runs" / "tiny", model, first, again, longer)


pytestmark = pytest.mark.timeout(1200)  # the fixture starts everything twice


def test_the_run_ends_well_names_its_report_and_leaves_no_process(whole: Whole) -> None:
    assert whole.first.code == 0, whole.first.output
    assert "finished: 2 of 2 steps" in whole.first.output
    assert f"report: {whole.folder / 'report.html'}" in whole.first.output
    assert (whole.first.left_over, whole.longer.left_over) == ((), ())


def test_the_conservation_law_is_printed_and_nothing_is_left_in_flight(whole: Whole) -> None:
    summary = json.loads((whole.folder / "summary.json").read_text())
    assert (summary["pending"], summary["leased"], summary["scored"]) == (0, 0, 0)
    assert summary["issued"] == summary["trained"] + sum(summary["withheld_by_reason"].values())
    assert summary["trained"] == 4 * PROMPTS_PER_STEP
    assert (
        f"issued {summary['issued']} = pending 0 + leased 0 + scored 0 + trained {summary['trained']}"
        in whole.longer.output
    )


def test_a_finished_run_asked_for_again_prints_its_summary_and_starts_nothing(whole: Whole) -> None:
    assert whole.again.code == 0
    assert "finished: 2 of 2 steps" in whole.again.output
    assert whole.again.wall_s < 30


def test_a_finished_run_goes_on_when_more_steps_are_asked_for_in_a_new_lineage(whole: Whole) -> None:
    assert whole.longer.code == 0, whole.longer.output
    rows = read_metrics(whole.folder)
    assert [(row["step"], row["lineage"]) for row in rows] == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)]


def test_every_group_was_trained_once_and_no_token_is_older_than_the_bound(whole: Whole) -> None:
    commits = committed(read(whole.folder / "ledger.log"))
    trained = [group_id for commit in commits for group_id in commit.group_ids]
    assert [commit.step for commit in commits] == [1, 2, 3, 4]
    assert len(trained) == len(set(trained)) == 4 * PROMPTS_PER_STEP
    for commit in commits:
        for group, _ in read_step(whole.folder / "experience" / f"step-{commit.step:06d}.arrow"):
            assert commit.step - 1 - group.version_min in (0, 1)


def test_the_weights_that_sampled_are_the_ones_that_were_published(whole: Whole) -> None:
    groups = [
        group
        for step in (3, 4)
        for group, _ in read_step(whole.folder / "experience" / f"step-{step:06d}.arrow")
    ]
    assert {group.lineage for group in groups} <= {1, 2}
    assert max(group.version_max for group in groups) >= 2


def test_every_reward_and_advantage_can_be_derived_again_from_the_record(
    whole: Whole, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (1, 2, 3, 4):
        assert check_step(whole.folder, step) == 0, capsys.readouterr().out
    assert "stand by themselves" not in capsys.readouterr().out
    for group, _ in read_step(whole.folder / "experience" / "step-000004.arrow"):
        assert (group.definition_hash, group.rubric_hash) == tuple(
            texts_hash((value_texts.read(whole.folder, each) or {}).values())
            for each in (group.definition_hash, group.rubric_hash)
        )
        lineages = {span.lineage for each in group.candidates_G for span in each.spans}
        assert lineages <= {1, 2}
        assert len(group.model_hash) == 32


def test_every_withheld_group_is_in_its_file_with_its_reason(whole: Whole) -> None:
    summary = json.loads((whole.folder / "summary.json").read_text())
    reasons = Counter(each.reason for each in withheld_groups.read(whole.folder))
    assert reasons == summary["withheld_by_reason"]


def test_what_needs_a_real_engine_and_a_real_learner_was_measured(whole: Whole) -> None:
    for row in read_metrics(whole.folder)[1:]:
        for name in (
            "loss",
            "grad_norm",
            "reward_mean",
            "judge_noise_std",
            "internalization_gap",
            "generate_tokens_per_s",
            "weight_bytes",
        ):
            assert row[name] is not None, name
        assert 0 <= row["staleness_max"] <= 1
        assert row["ratio_mean"] == pytest.approx(1.0)
    assert {item.step for item in read_heldout(whole.folder)} == {0, 2, 4}


def test_the_exported_model_loads_in_transformers_and_has_learned(whole: Whole) -> None:
    checkpoint = newest_whole(whole.folder / "checkpoints")
    assert checkpoint is not None
    assert verify(checkpoint).step == 4
    trained = AutoModelForCausalLM.from_pretrained(checkpoint / "hf")
    initial = AutoModelForCausalLM.from_pretrained(whole.model)
    assert AutoTokenizer.from_pretrained(checkpoint / "hf").chat_template
    changed = [
        not torch.equal(new, old) for new, old in zip(trained.parameters(), initial.parameters(), strict=True)
    ]
    assert all(changed)


def test_the_report_is_one_file_with_the_runs_samples(whole: Whole) -> None:
    page = (whole.folder / "report.html").read_text()
    group, _ = next(read_step(whole.folder / "experience" / "step-000004.arrow"))
    assert group.prompt_id in page
    assert "<script src" not in page


def test_endpoint_and_pool_have_scored_every_group_beside_the_judge_and_each_question_is_paid_for_once(
    whole: Whole,
) -> None:
    files = [whole.folder / "experience" / f"step-{step:06d}.arrow" for step in (1, 2, 3, 4)]
    groups = [group for file in files for group, _ in read_step(file)]
    for candidate in (candidate for group in groups for candidate in group.candidates_G):
        opinions = candidate.verdict.opinions
        statuses = {(each.judge, each.status) for each in opinions if each.role == "probe"}
        if candidate.verdict.status != "empty":
            assert statuses == {("beside", "parsed"), ("frozen", "parsed")}
    (total,) = totals_in(whole.folder / "answers.sqlite")
    assert total.account.startswith(f"{MODEL} at http://127.0.0.1:")
    assert total.spent.cost > 0
    with sqlite3.connect(whole.folder / "answers.sqlite") as db:
        judged = (
            "SELECT count(*), count(DISTINCT key) FROM requests WHERE purpose = 'judge' AND state = 'billed'"
        )
        sent, keys = db.execute(judged).fetchone()
    assert sent == keys >= len(groups)
    assert total.account in (whole.folder / "report.html").read_text()
