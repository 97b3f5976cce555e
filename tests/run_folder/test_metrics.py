"""metrics.jsonl, heldout.jsonl and TensorBoard: what is written is what is read, and a resumed run reads as
one history."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dynalign.configs.errors import RecordError
from dynalign.run_folder.heldout import HeldoutItem, oldest_version
from dynalign.run_folder.metric_names import METRIC_NAMES, METRICS
from dynalign.run_folder.metrics import MetricsLog, read_heldout, read_metrics

DESIGN_NAMES = """
step lineage policy_version loss grad_norm learning_rate entropy kl reward_mean reward_std
heldout_reward_mean heldout_prompted_reward_mean heldout_version_min
frozen_judge_reward_mean no_signal_fraction
score_saturation_fraction unparsed_fraction digit_mass_mean judge_noise_std score_length_correlation
score_length_correlation_within score_confidence_correlation advantage_reliability unreadable_fraction
injection_fraction aspect_spread second_judge_gap second_judge_rank_correlation self_bias_correlation
capability_change capability_change_se capability_tokens evaluation_tokens
score_position_correlation unreachable_fraction judge_tokens judge_money
internalization_gap staleness_mean staleness_max ratio_mean ratio_max clip_low_fraction clip_high_fraction
effective_sample_size logprob_mismatch_mean completion_tokens completion_length_mean truncated_fraction
generate_tokens_per_s judgements_per_s learn_tokens_per_s step_s generate_s score_s learn_s learner_wait_s
straggler_wait_s rollout_idle_fraction weight_sync_s weight_sync_pause_s weight_bytes issued pending
leased scored trained withheld requeued late rolled_back workers worker_restarts
alarm_reward_collapse alarm_capability_loss alarm_prompt_overfitting alarm_aspect_imbalance alarm_value_drift
alarm_length_gaming alarm_low_reliability alarm_self_bias alarm_unparsed_verdicts alarm_injection
"""


def item(
    step: int, lineage: int, prompt_id: str = "a", completion: str = "yes", prompted: bool = False
) -> HeldoutItem:
    return HeldoutItem(step, lineage, prompt_id, "why?", prompted, 2.5, completion, 3, False)


def test_a_held_out_answer_of_an_earlier_dynalign_says_no_versions_and_is_of_its_step_s(
    tmp_path: Path,
) -> None:
    with MetricsLog(tmp_path, tensorboard=False, lineage=1) as log:
        log.write_heldout([replace(item(5, 1), version_min=4, version_max=5), item(6, 1)])
    file = tmp_path / "heldout.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    del lines[1]["version_min"], lines[1]["version_max"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_heldout(tmp_path)
    assert found == [replace(item(5, 1), version_min=4, version_max=5), item(6, 1)]
    assert [oldest_version([each]) for each in found] == [4, 6]


def test_the_names_and_their_order_are_the_contract() -> None:
    assert list(METRIC_NAMES) == DESIGN_NAMES.split()


def test_every_name_is_a_prometheus_name_with_a_unit_and_one_help_sentence() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
        assert metric.unit
        assert metric.help[0].isupper()
        assert metric.help.endswith(".")
        assert "\n" not in metric.help


VALUES = st.none() | st.integers(-(2**50), 2**50) | st.floats(allow_nan=False, allow_infinity=False)


@given(values=st.dictionaries(st.sampled_from(METRIC_NAMES[2:]), VALUES))
def test_every_row_round_trips_and_what_is_missing_is_null(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, float | int | None]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with MetricsLog(folder, tensorboard=False, lineage=1) as log:
        log.write({"step": 7} | values)
    [row] = read_metrics(folder)
    assert row == dict.fromkeys(METRIC_NAMES) | {"step": 7, "lineage": 1} | values
    assert list(json.loads((folder / "metrics.jsonl").read_text())) == ["format", *METRIC_NAMES]


def test_a_row_is_on_disk_before_the_log_is_closed(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, tensorboard=False, lineage=1) as log:
        log.write({"step": 1, "loss": 0.5})
        assert read_metrics(tmp_path)[0]["loss"] == 0.5


@pytest.mark.parametrize("row", [{"step": 1, "lost": 0.0}, {"loss": 0.0}, {"step": 1, "lineage": 3}])
def test_a_row_with_an_unknown_name_no_step_or_a_foreign_lineage_is_refused(
    tmp_path: Path, row: dict[str, float]
) -> None:
    with (
        MetricsLog(tmp_path, tensorboard=False, lineage=2) as log,
        pytest.raises(ValueError, match="lost|lineage"),
    ):
        log.write(row)
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_json_cannot_hold_becomes_null_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: float
) -> None:
    with MetricsLog(tmp_path, tensorboard=False, lineage=1) as log:
        log.write({"step": 3, "grad_norm": value})
    assert read_metrics(tmp_path)[0]["grad_norm"] is None
    assert "step 3: grad_norm" in caplog.text


def write_steps(folder: Path, lineage: int, steps: range) -> None:
    with MetricsLog(folder, tensorboard=False, lineage=lineage) as log:
        for step in steps:
            log.write({"step": step, "loss": float(lineage)})


def test_rows_that_a_newer_lineage_rolled_back_are_superseded(tmp_path: Path) -> None:
    write_steps(tmp_path, 1, range(0, 13))
    write_steps(tmp_path, 2, range(11, 15))
    write_steps(tmp_path, 3, range(13, 14))
    assert [(row["step"], row["lineage"]) for row in read_metrics(tmp_path)] == [
        (s, 1) for s in range(11)
    ] + [(11, 2), (12, 2), (13, 3)]


def test_the_last_row_of_a_step_wins_within_one_lineage(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, tensorboard=False, lineage=1) as log:
        log.write({"step": 1, "loss": 1.0})
        log.write({"step": 1, "loss": 2.0})
    assert [row["loss"] for row in read_metrics(tmp_path)] == [2.0]


def test_a_line_torn_by_a_kill_is_ignored_by_the_reader_and_cut_by_the_next_writer(tmp_path: Path) -> None:
    write_steps(tmp_path, 1, range(0, 2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "li')
    assert len(read_metrics(tmp_path)) == 2
    write_steps(tmp_path, 2, range(2, 3))
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"loss": 1.0}'])
def test_a_damaged_line_is_named_by_file_and_number(tmp_path: Path, line: str) -> None:
    write_steps(tmp_path, 1, range(1))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RecordError, match=r"metrics\.jsonl, line 2"):
        read_metrics(tmp_path)


@given(prompt_id=st.text(), completion=st.text())
def test_held_out_answers_round_trip_whatever_their_text(
    tmp_path_factory: pytest.TempPathFactory, prompt_id: str, completion: str
) -> None:
    folder = tmp_path_factory.mktemp("run")
    written = [item(0, 1, prompt_id, completion), item(0, 1, prompt_id, completion, prompted=True)]
    with MetricsLog(folder, tensorboard=False, lineage=1) as log:
        log.write_heldout(written)
    assert read_heldout(folder) == written


def test_held_out_answers_follow_the_history_of_the_rows(tmp_path: Path) -> None:
    write_steps(tmp_path, 1, range(0, 13))
    with MetricsLog(tmp_path, tensorboard=False, lineage=1) as log:
        log.write_heldout([item(0, 1), item(5, 1), item(12, 1)])
    write_steps(tmp_path, 2, range(11, 12))
    assert [(i.step, i.lineage) for i in read_heldout(tmp_path)] == [(0, 1), (5, 1)]
    with MetricsLog(tmp_path, tensorboard=False, lineage=2) as log:
        log.write_heldout([item(5, 2, completion="again")])
    assert [(i.step, i.completion) for i in read_heldout(tmp_path)] == [(0, "yes"), (5, "again")]


def test_tensorboard_shows_the_values_by_section_and_forgets_what_was_rolled_back(tmp_path: Path) -> None:
    for lineage, steps in ((1, range(1, 5)), (2, range(3, 4))):
        with MetricsLog(tmp_path, tensorboard=True, lineage=lineage) as log:
            for step in steps:
                log.write({"step": step, "reward_mean": lineage * 10.0 + step, "issued": 4 * step})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["ledger/issued", "reward/reward_mean"]
    assert [(event.step, event.value) for event in events.Scalars("reward/reward_mean")] == [
        (1, 11.0),
        (2, 12.0),
        (3, 23.0),
    ]


def test_the_metrics_log_imports_neither_torch_nor_ray() -> None:
    heavy = {"torch", "ray", "vllm", "tensorflow"}
    script = f"import sys, dynalign.run_folder.metrics; sys.exit(bool({heavy} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", script], check=False, cwd=Path(__file__).parents[2]).returncode
        == 0
    )
