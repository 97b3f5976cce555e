"""The report of synthetic runs: what is read, what is missing, hostile text, no network."""

import base64
import hashlib
import json
import math
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign.benchmarks.simulated_runs import FAULTS, Shape, simulate
from dynalign.configs.errors import UserError
from dynalign.configs.sections.alarms import AlarmsSettings
from dynalign.evaluation.statistics.estimates import Estimate
from dynalign.launch.report.alarm_lines import alarm_lines
from dynalign.launch.report.charts import Series, line_chart
from dynalign.launch.report.data import (
    capability_curve,
    gap_curve,
    heldout_age,
    heldout_change,
    heldout_curve,
    load_run,
    training_curve,
)
from dynalign.launch.report.report import render, write_report
from dynalign.launch.report.time_split import learner_split, rollout_split
from dynalign.rollout.arrow_schema import decode, encode, to_batch
from dynalign.run_folder.heldout import HeldoutItem
from dynalign.run_folder.metric_names import METRIC_NAMES
from dynalign.run_folder.metrics import MetricsLog
from tests.worlds.synthetic_run import group, synthetic_run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_run(tmp_path_factory.mktemp("runs") / "quickstart")


class Page(HTMLParser):
    """What a browser sees: tags with attributes, texts by their tag, and the tags still open at the end."""

    VOID = frozenset({"meta", "path", "rect", "circle", "polyline", "polygon", "br", "link", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in self.VOID or self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))


def page_of(folder: Path) -> tuple[str, Page]:
    html = render([load_run(folder)])
    return html, Page(html)


def samples_of(page: Page) -> list[dict[str, Any]]:
    scripts = [text for tag, text in page.texts if tag == "script"]
    return list(json.loads(scripts[0]))


# -- what is read


def test_training_reward_is_the_mean_of_group_means(run_folder: Path) -> None:
    run = load_run(run_folder)
    (step, estimate), *_ = training_curve(run)
    groups = decode((run_folder / "experience" / "step-000001.arrow").read_bytes(), "step 1")
    means = [
        fmean(score for score in each.column("score").to_pylist() if score is not None) for each in groups
    ]
    assert (step, estimate.mean, estimate.n) == (1, pytest.approx(fmean(means)), 4)


def test_held_out_reward_counts_every_prompt_once_and_a_change_is_paired(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, tensorboard=False, lineage=1) as log:
        for step, scores in ((0, [1.0, 4.0, None]), (5, [1.5, 4.5, 2.0])):
            log.write({"step": step})
            log.write_heldout(
                HeldoutItem(step, 1, f"h{i}", "why?", False, score, "so", 1, False)
                for i, score in enumerate(scores)
            )
    run = load_run(tmp_path)
    assert [(step, each.mean, each.n) for step, each in heldout_curve(run, prompted=False)] == [
        (0, 2.5, 2),
        (5, pytest.approx(8 / 3), 3),
    ]
    assert heldout_change(run, prompted=False) == Estimate(0.5, 0.5, 0.5, 2)
    assert heldout_change(run, prompted=True) is None


@pytest.mark.parametrize(("oldest", "said"), [(5, False), (2, True)])
def test_the_page_says_how_old_answers_are_that_were_given_beside_the_groups(
    tmp_path: Path, oldest: int, said: bool
) -> None:
    with MetricsLog(tmp_path, tensorboard=False, lineage=1) as log:
        log.write({"step": 5, "reward_mean": 1.0})
        log.write_heldout([HeldoutItem(5, 1, "h", "why?", False, 2.0, "so", 1, False, oldest, 5)])
    run = load_run(tmp_path)
    assert heldout_age(run) == 5 - oldest
    words = "They are of the version of their step, and of up to 3 before."
    assert (words in render([run])) == said


def test_without_records_the_rows_give_the_curves_without_intervals(tmp_path: Path) -> None:
    run = load_run(synthetic_run(tmp_path / "bare", steps=3, keep=False))
    assert [estimate.n for _, estimate in training_curve(run)] == [None] * 3
    assert gap_curve(run) == [(step, Estimate(0.12)) for step in (1, 2, 3)]


def test_records_of_a_step_that_was_rolled_back_are_not_shown(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path / "run", steps=3)
    (folder / "experience" / "step-000004.arrow").write_bytes(
        (folder / "experience" / "step-000003.arrow").read_bytes()
    )
    assert sorted(load_run(folder).experience) == [1, 2, 3]


def test_the_embedded_samples_are_the_first_and_the_last_steps_and_the_page_says_so(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path / "run", steps=20)
    html, page = page_of(folder)
    assert [sample["step"] for sample in samples_of(page)] == [1, 2, 3, *range(11, 21)]
    assert "Steps 1–3, 11–20 of 20 steps with records" in html


def test_a_step_whose_samples_are_too_long_shows_fewer_groups_and_how_many_there_are(tmp_path: Path) -> None:
    (tmp_path / "experience").mkdir()
    (tmp_path / "config.yaml").write_text("name: long\n")
    step = encode([to_batch(group(random.Random(index), 1, index, 2.0, "x" * 8_000)) for index in range(8)])
    (tmp_path / "experience" / "step-000001.arrow").write_bytes(step)
    [sample] = load_run(tmp_path).samples
    assert (len(sample["groups"]), sample["groups_total"]) == (
        7,
        8,
    )  # 8 candidates of 4,000 characters each: 32,000 per group
    assert sample["groups"][0]["candidates"][0]["text"].endswith("… (4,000 more characters)")


def test_candidates_are_sorted_by_score_with_unparsed_ones_last(run_folder: Path) -> None:
    for sample in load_run(run_folder).samples:
        for each in sample["groups"]:
            scores = [-1.0 if c["score"] is None else c["score"] for c in each["candidates"]]
            assert scores == sorted(scores, reverse=True)
            assert len(scores) == 8


def test_time_splits_add_up_to_the_step(run_folder: Path) -> None:
    run = load_run(run_folder)
    step_s = dict(run.column("step_s"))
    for split in (rollout_split(run), learner_split(run)):
        assert {step: pytest.approx(sum(parts)) for step, parts in split.items()} == step_s
        assert min(part for parts in split.values() for part in parts) >= 0


# -- the page


def test_the_page_asks_for_nothing_from_outside_and_forbids_it(run_folder: Path) -> None:
    html, page = page_of(run_folder)
    assert "://" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "embed", "base", "form"}
    assert not [
        attrs for _, attrs in page.tags if "src" in attrs or not str(attrs.get("href", "#")).startswith("#")
    ]
    policy = next(
        attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert str(policy).startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_the_policy_names_the_hash_of_the_one_script(run_folder: Path) -> None:
    html, page = page_of(run_folder)
    script = [text for tag, text in page.texts if tag == "script"][-1]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in html


HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>&amp;<!--<script>\u2028'\"]]>{{ 7 * 7 }}"
)


def test_what_a_model_wrote_stays_text(tmp_path: Path) -> None:
    _, page = page_of(synthetic_run(tmp_path / "run", steps=2, hostile=HOSTILE))
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert "img" not in {tag for tag, _ in page.tags}
    assert {
        c["text"] for sample in samples_of(page) for each in sample["groups"] for c in each["candidates"]
    } == {HOSTILE}
    assert HOSTILE in {text for tag, text in page.texts if tag == "p"}  # a held-out answer
    assert page.open == []


@settings(max_examples=25, deadline=None)
@given(words=st.text(min_size=1, max_size=60))
def test_any_name_in_a_chart_is_escaped(words: str) -> None:
    chart = line_chart(
        words,
        words,
        [Series(words, [(1, Estimate(1.0))], 0), Series("b", [(1, Estimate(2.0))], 1)],
        rules={words: 1.5},
    )
    page = Page(str(chart.svg))
    assert {tag for tag, _ in page.tags} <= {"svg", "path", "text", "rect", "circle", "polyline", "polygon"}
    assert page.open == []


@pytest.mark.parametrize("steps", [0, 1, 2, 75])
def test_a_run_of_any_length_has_a_whole_page(tmp_path: Path, steps: int) -> None:
    html, page = page_of(synthetic_run(tmp_path / "run", steps=steps))
    assert page.open == []
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", html.lower())


def test_a_run_that_has_only_begun_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: begun\nsteps: 8\n")
    html, page = page_of(tmp_path)
    assert "metrics.jsonl has no row yet" in html
    assert html.count("No figures for this chart") == 14
    assert "svg" not in {tag for tag, _ in page.tags}
    assert "no summary yet" in html


def test_damaged_files_are_named_on_the_page_and_the_rest_is_shown(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path / "run", steps=4)
    (folder / "experience" / "step-000002.arrow").write_bytes(b"nonsense")
    (folder / "summary.json").write_text("{}")
    html, _ = page_of(folder)
    assert "step-000002.arrow: damaged Arrow records" in html
    assert "summary.json: not a summary" in html
    assert "<svg" in html


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gap_that_is_no_finite_number_is_left_out_and_the_rest_is_shown(
    tmp_path: Path, value: float
) -> None:
    folder = synthetic_run(tmp_path / "run", steps=3)
    file = folder / "experience" / "step-000002.arrow"
    reader = pa.ipc.open_stream(file.read_bytes())
    schema, batches = reader.schema, list(reader)
    index = schema.get_field_index("gap_sum_nats")
    gaps = batches[0].column(index).to_pylist()
    gaps[next(number for number, gap in enumerate(gaps) if gap is not None)] = value
    batches[0] = batches[0].set_column(index, schema.field(index), pa.array(gaps, pa.float64()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    file.write_bytes(bytes(sink.getvalue()))
    rows = [json.loads(line) | {"internalization_gap": value} for line in metrics_lines(folder)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [step for step, estimate in gap_curve(load_run(folder)) if not math.isfinite(estimate.mean)] == []
    page = write_report([folder]).read_text()
    assert "NaN" not in page
    assert "Infinity" not in page


def metrics_lines(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_several_runs_are_overlaid_and_named_by_folder_when_their_names_are_equal(tmp_path: Path) -> None:
    folders = [
        synthetic_run(tmp_path / place / "same", steps=4, seed=seed) for seed, place in enumerate(("a", "b"))
    ]
    path = write_report(folders)
    assert path == folders[0] / "report.html"
    page = Page(path.read_text())
    assert {str(folder) for folder in folders} <= {text for tag, text in page.texts if tag == "td"}


def test_folders_that_are_no_run_folders_are_all_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        write_report([tmp_path / "one", tmp_path / "two"])
    assert [mistake.value for mistake in caught.value.mistakes] == [
        str(tmp_path / "one"),
        str(tmp_path / "two"),
    ]


def test_the_alarms_are_a_table_with_what_was_seen_and_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fault = next(fault for fault in FAULTS if fault.alarm == "injection")
    with MetricsLog(folder, tensorboard=False, lineage=1) as log:
        for row in simulate(np.random.default_rng(4), Shape(steps=60), fault, 40):
            fired = {"alarm_unparsed_verdicts": int(row["step"] in (9, 10, 12))}
            log.write({name: value for name, value in row.items() if name in METRIC_NAMES} | fired)
    (folder / "config.yaml").write_text("alarms: {reward_collapse: {threshold: 11.5}}")
    lines = {line.name: line for line in alarm_lines(load_run(folder))}
    assert set(lines) == set(AlarmsSettings.model_fields)
    first = next(iter(lines.values()))
    assert (first.name, first.fires) == ("injection", True)
    assert re.fullmatch(r"fires since step 4\d", first.state)
    assert "read the answers of the last steps" in first.words
    assert lines["unparsed_verdicts"].state == "silent; fired in steps 9–10, 12"
    assert lines["reward_collapse"].statistic.endswith(" of 11.5")
    html = render([load_run(folder)])
    assert "<b>injection</b>" in html
    assert "<details open>\n    <summary>1 alarm fires, 0 of 10 are not measured</summary>" in html
    assert "read the answers of the last steps" in html


def test_the_capability_probe_is_a_curve_with_its_interval_where_it_was_measured(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with MetricsLog(folder, tensorboard=False, lineage=1) as log:
        for step in range(8):
            measured = {"capability_change": -0.02, "capability_change_se": 0.01} if step == 6 else {}
            log.write({"step": step, "capability_change": -0.5} if step == 1 else {"step": step, **measured})
    ((step, change),) = capability_curve(load_run(folder))
    assert (step, change.mean) == (6, -0.02)
    assert (change.low, change.high) == (pytest.approx(-0.0396), pytest.approx(-0.0004))
    assert "Capability probe" in render([load_run(folder)])


def test_a_run_of_an_earlier_version_has_alarms_that_were_not_measured(run_folder: Path) -> None:
    states = {line.name: line.state for line in alarm_lines(load_run(run_folder))}
    assert states["value_drift"] == "not measured"
    assert re.search(
        r"<details>\s*<summary>No alarm fires, \d+ of 10 are not", render([load_run(run_folder)])
    )
    assert alarm_lines(replace(load_run(run_folder), rows=[])) == []
