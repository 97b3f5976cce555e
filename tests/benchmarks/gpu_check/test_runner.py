"""The check's runner, with stages that are small scripts: order, deadlines, what is kept, what runs again."""

import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dynalign.benchmarks.gpu_check.__main__ import exit_code
from dynalign.benchmarks.gpu_check.origin import sources_hash
from dynalign.benchmarks.gpu_check.outcomes import Origin, StageOutcome, append, newest, read, read_figures
from dynalign.benchmarks.gpu_check.runner import Check
from dynalign.benchmarks.gpu_check.stages import STAGES, Limits, Stage, chosen_stages
from dynalign.benchmarks.gpu_check.table import table_lines
from dynalign.configs.errors import RecordError, UserError
from tests.worlds.product import ROOT

ORIGIN = Origin("cpu", "A Processor", "0123456789ab", "5c1f0a9b7e22")
QUICK = Limits(1.0, 20.0)
# A stage's own words, without the libraries of the product: each starts in a tenth of a second.
SCRIPT = """
import json, os, subprocess, sys, time
site = json.load(open(sys.argv[1]))
def figure(**values):
    with open(f"{site['notes']}/{site['stage']}.figures.jsonl", "a") as out:
        out.write(json.dumps(values) + "\\n")
"""
WORDS = {
    "well": "figure(speed=2.5)",
    "wrong": "figure(speed=1.5); sys.exit('it measured nonsense')",
    "hangs": "figure(child=subprocess.Popen(['sleep', '60']).pid); time.sleep(60)",
    "cannot": "open(f\"{site['notes']}/{site['stage']}.reason\", 'w').write('there is one GPU')",
    "torn": "figure(speed=3.5); open(f\"{site['notes']}/torn.figures.jsonl\", 'a').write('{\"half')",
}


def stage(name: str, limits: Limits = QUICK) -> Stage:
    return Stage(name, name, f"what {name} is", limits, limits)


def command(one: Stage, site: Path) -> list[str]:
    return ["-I", "-S", "-c", SCRIPT + WORDS[one.name], str(site)]


def check(out: Path, seconds: float = 100.0, **changed: object) -> Check:
    out.mkdir(exist_ok=True)
    made = Check(out, out / "scratch", None, ORIGIN, time.time() + seconds, command)
    return replace(made, **changed)  # type: ignore[arg-type]


def outcome(name: str, **changed: object) -> StageOutcome:
    made = StageOutcome(name, "passed", 1.0, {"speed": 2.5}, "", ORIGIN, 1767225600.0)
    return replace(made, **changed)  # type: ignore[arg-type]


# -- one call --------------------------------------------------------------------------------------


def test_stages_run_in_order_and_each_keeps_its_figures_however_it_ends(tmp_path: Path) -> None:
    told: list[str] = []
    names = ("well", "wrong", "torn", "cannot")
    found = check(tmp_path, tell=told.append).run([stage(name) for name in names])
    assert [(each.stage, each.status, each.cause) for each in found] == [
        ("well", "passed", ""),
        ("wrong", "failed", "it measured nonsense"),
        ("torn", "passed", ""),
        ("cannot", "skipped", "there is one GPU"),
    ]
    assert [each.figures for each in found] == [{"speed": 2.5}, {"speed": 1.5}, {"speed": 3.5}, {}]
    assert read(tmp_path / "results.jsonl") == found
    assert [line for line in told if line.endswith("…")] == [f"{name}: what {name} is …" for name in names]
    assert not [*(tmp_path / "scratch").iterdir()], "a stage's own folder is removed with it"


def test_a_stage_is_ended_at_its_deadline_with_what_it_has_started_and_the_next_one_runs(
    tmp_path: Path,
) -> None:
    hung, well = check(tmp_path).run([stage("hangs", Limits(0.1, 1.0)), stage("well")])
    assert (hung.status, hung.cause) == ("deadline", "it was ended after 1 s")
    assert well.status == "passed"
    child = int(hung.figures["child"])
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"


def test_a_stage_without_its_least_time_is_not_started_and_a_shorter_one_behind_it_is(
    tmp_path: Path,
) -> None:
    long, well = check(tmp_path, seconds=30.0).run([stage("hangs", Limits(60.0, 90.0)), stage("well")])
    assert (long.status, long.seconds, long.figures) == ("skipped", 0.0, {})
    assert long.cause.endswith("s are left, and it takes at least 60")
    assert well.status == "passed"


def test_the_total_cuts_the_last_stage_s_deadline(tmp_path: Path) -> None:
    began_s = time.monotonic()
    (hung,) = check(tmp_path, seconds=1.5).run([stage("hangs", Limits(1.0, 60.0))])
    assert hung.status == "deadline"
    assert time.monotonic() - began_s < 20


def test_a_result_is_on_the_disk_before_the_next_stage_begins(tmp_path: Path) -> None:
    seen: list[int] = []

    def tell(line: str) -> None:
        if line.endswith("…"):
            seen.append(len(read(tmp_path / "results.jsonl")))

    check(tmp_path, tell=tell).run([stage("well"), stage("wrong"), stage("torn")])
    assert seen == [0, 1, 2]


def test_an_interrupted_stage_keeps_a_line_and_those_behind_it_are_not_started(tmp_path: Path) -> None:
    started: list[str] = []

    def interrupted(one: Stage, site: Path) -> list[str]:
        started.append(one.name)
        if one.name == "wrong":
            raise KeyboardInterrupt
        return command(one, site)

    with pytest.raises(KeyboardInterrupt):
        check(tmp_path, command=interrupted).run([stage("well"), stage("wrong"), stage("torn")])
    assert started == ["well", "wrong"]
    assert [(each.status, each.cause) for each in read(tmp_path / "results.jsonl")] == [
        ("passed", ""),
        ("failed", "interrupted"),
    ]


# -- further calls ---------------------------------------------------------------------------------


def test_a_second_call_goes_on_behind_what_passed_and_runs_again_what_did_not(tmp_path: Path) -> None:
    stages = [stage("well"), stage("wrong"), stage("cannot")]
    first = check(tmp_path).run(stages)
    told: list[str] = []
    second = check(tmp_path, tell=told.append).run(stages)
    assert told[0] == "well: done before"
    assert second[0] == first[0]
    assert [each.stage for each in read(tmp_path / "results.jsonl")] == [
        "well",
        "wrong",
        "cannot",
        "wrong",
        "cannot",
    ]


@pytest.mark.parametrize(
    "changed", [{"sources": "another"}, {"card": "another card"}, {"device": "gpu"}], ids=str
)
def test_other_sources_or_another_card_are_not_done(tmp_path: Path, changed: dict[str, str]) -> None:
    append(tmp_path / "results.jsonl", outcome("well"))
    other = replace(ORIGIN, **changed)  # type: ignore[arg-type]
    check(tmp_path, origin=other).run([stage("well")])
    assert len(read(tmp_path / "results.jsonl")) == 2


def test_another_commit_with_the_same_sources_is_done(tmp_path: Path) -> None:
    append(tmp_path / "results.jsonl", outcome("well"))
    check(tmp_path, origin=replace(ORIGIN, commit="")).run([stage("well")])
    assert len(read(tmp_path / "results.jsonl")) == 1


def test_the_last_outcome_of_a_stage_counts() -> None:
    found = newest([outcome("a", status="failed"), outcome("b"), outcome("a")], ORIGIN)
    assert {name: each.status for name, each in found.items()} == {"a": "passed", "b": "passed"}


# -- files -----------------------------------------------------------------------------------------


def test_a_line_that_a_killed_check_left_half_written_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append(file, outcome("a"))
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:40])
    assert read(file) == [outcome("a")]
    append(file, outcome("b"))
    assert read(file) == [outcome("a"), outcome("b")]


def test_another_line_that_is_no_outcome_is_refused_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append(file, outcome("a"))
    file.write_text(file.read_text() + '{"stage": "b"}\n')
    with pytest.raises(RecordError, match=r"results\.jsonl:2 is no result"):
        read(file)


def test_of_a_figure_that_was_written_twice_the_last_value_counts(tmp_path: Path) -> None:
    file = tmp_path / "figures.jsonl"
    file.write_text('{"a": 1, "b": 2}\n{"a": 3}\n{"a": ')
    assert read_figures(file) == {"a": 3, "b": 2}
    assert read_figures(tmp_path / "none") == {}


def test_the_hash_of_the_sources_follows_links_and_sees_every_change(tmp_path: Path) -> None:
    room = tmp_path / "room"
    package = tmp_path / "package"
    (room / "wing").mkdir(parents=True)
    package.mkdir()
    (package / "room").symlink_to(room)
    (room / "wing" / "a.py").write_text("a = 1")
    (room / "notes.md").write_text("words")
    first = sources_hash(package)
    (room / "notes.md").write_text("other words")
    assert sources_hash(package) == first
    (room / "wing" / "a.py").write_text("a = 2")
    assert sources_hash(package) != first


# -- what people see -------------------------------------------------------------------------------


def test_the_table_has_a_line_per_stage_with_its_figures_below() -> None:
    lines = [*table_lines([outcome("well"), outcome("wrong", status="failed", cause="why")], ORIGIN)]
    assert lines[0] == "A Processor, commit 0123456789ab, sources 5c1f0a9b7e22"
    assert lines[1].startswith("dry run")
    assert [line.split() for line in lines[2:]] == [
        ["stage", "status", "seconds"],
        ["well", "passed", "1"],
        ["speed", "2.5"],
        ["wrong", "failed", "1", "why"],
        ["speed", "2.5"],
    ]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 0),
        ({"status": "failed"}, 1),
        ({"status": "deadline"}, 1),
        ({"status": "skipped"}, 0),
        ({"status": "skipped", "seconds": 0.0}, 1),
    ],
    ids=str,
)
def test_the_exit_code_is_0_where_nothing_is_left_to_do_here(changed: dict[str, object], code: int) -> None:
    assert exit_code([outcome("a"), outcome("b", **changed)]) == code


def test_every_stage_has_a_name_of_its_own_a_module_and_times_that_agree() -> None:
    assert len({one.name for one in STAGES}) == len(STAGES)
    assert STAGES[0].name == "facts"
    for one in STAGES:
        assert (ROOT / "benchmarks" / "gpu_check" / f"{one.module}.py").is_file()
        for limits in (one.gpu, one.cpu):
            assert 0 < limits.least_s < limits.deadline_s
        assert one.gpu.deadline_s < 9 * 60, "one stage fits into one call"


def test_chosen_stages_come_in_the_catalog_s_order_and_unknown_ones_are_named_together() -> None:
    assert [one.name for one in chosen_stages("mismatch, facts")] == ["facts", "mismatch"]
    assert chosen_stages(None) == STAGES
    with pytest.raises(UserError) as refused:
        chosen_stages("fact,nonsense")
    assert [mistake.value for mistake in refused.value.mistakes] == ["fact", "nonsense"]
    assert "did you mean facts?" in str(refused.value)
