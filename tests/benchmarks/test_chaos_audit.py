"""The audit of a run folder names whatever is lost, doubled or too old, and nothing where all is right."""

import json
from pathlib import Path
from typing import Any

import pytest

from dynalign.benchmarks.chaos import raw
from dynalign.benchmarks.chaos.audit import audit
from tests.worlds.made_up_run import Line, MadeUp, commit, experience_group, poisoned, scored, start
from tests.worlds.product import ROOT

GOLDEN = ROOT / "tests" / "golden" / "formats"


def mistakes(made_up: MadeUp, folder: Path, max_staleness: int = 1, poison: tuple[str, ...] = ()) -> str:
    return "\n".join(audit(made_up.write(folder), max_staleness, poison).mistakes)


def test_a_run_that_lost_nothing_is_accounted_for(tmp_path: Path) -> None:
    found = audit(MadeUp().write(tmp_path), max_staleness=1)
    assert found.mistakes == ()
    assert (found.issued, found.trained, found.withheld) == (8, 6, 2)
    assert (found.steps, found.lineages, found.requeued, found.rolled_back) == (3, 2, 1, 2)


def test_a_run_without_a_checkpoint_is_no_finished_run(tmp_path: Path) -> None:
    (tmp_path / "ledger.log").write_text("")
    assert audit(tmp_path, max_staleness=1).mistakes == ("there is no whole checkpoint",)


# ---- groups that were given up, lost, or are in two states


@pytest.mark.parametrize("reason", ["attempts_exhausted", "poison", "whatever comes next"])
def test_a_group_that_was_withheld_for_an_accident_is_given_up(tmp_path: Path, reason: str) -> None:
    made_up = MadeUp()
    made_up.withhold(reason, *range(8, 47))
    assert f"39 groups were given up as {reason}: 8, 9, 10, 11, 12, 13, 14, 15, …" in mistakes(
        made_up, tmp_path
    )


def test_a_judge_that_was_struck_may_leave_groups_without_a_score(tmp_path: Path) -> None:
    made_up = MadeUp()
    made_up.withhold("judge_unreachable", 8, 9)
    folder = made_up.write(tmp_path)
    struck = audit(folder, 1, judge_struck=True)
    assert (struck.mistakes, struck.unreachable) == ((), 2)
    assert audit(folder, 1).mistakes == ("2 groups were given up as judge_unreachable: 8, 9",)


def test_the_end_of_a_run_withholds_no_more_groups_than_can_be_open(tmp_path: Path) -> None:
    made_up = MadeUp()
    made_up.withhold("run_ended", 8, 9, 10)
    assert mistakes(made_up, tmp_path / "most") == ""
    made_up.withhold("run_ended", 11)
    found = mistakes(made_up, tmp_path / "more")
    assert found == "5 groups were given up as run_ended, but at most 4 can be open: 7, 8, 9, 10, 11"


def test_poison_is_a_reason_for_the_prompts_that_are_meant_to_be(tmp_path: Path) -> None:
    made_up = MadeUp()
    made_up.withhold("poison", 8, 9)
    made_up.lines[-1:-1] = [poisoned(8, 2, 5), poisoned(9, 2, 6)]
    folder = made_up.write(tmp_path)
    rows = [
        {"prompt_index": 5, "split": "train", "prompt": "knot"},
        {"prompt_index": 6, "split": "train", "prompt": "tea"},
    ]
    (folder / "poison.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert audit(folder, 1, ["knot", "tea"]).mistakes == ()
    assert audit(folder, 1, ["knot"]).mistakes == ("1 groups were given up as poison: 9",)


def test_a_group_that_nobody_has_is_lost(tmp_path: Path) -> None:
    made_up = MadeUp()
    made_up.state["withheld"] = {"low_signal": [4]}
    found = mistakes(made_up, tmp_path)
    assert "group 7 is lost" in found
    assert (
        "the conservation law: issued 8 is not pending 0 + leased 0 + scored 0 + trained 6 + withheld 1"
        in found
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "withheld",
            {"low_signal": [4, 5], "run_ended": [7]},
            "group 5 is in 2 states: trained and withheld",
        ),
        (
            "withheld",
            {"low_signal": [4, 7], "run_ended": [7]},
            "group 7 is in 2 states: withheld and withheld",
        ),
        ("pending", [7], "group 7 is in 2 states: pending and withheld"),
        ("leased", [6], "group 6 is in 2 states: leased and trained"),
        ("scored", [[1, 0, 1, 1]], "group 0 is in 2 states: scored and trained"),
        ("issued", 9, "group 8 is lost"),
        ("issued", 7, "group 7 was never issued"),
        ("trained", 5, "counts 5 trained groups, the log 6"),
        ("ended", False, "does not say that the run has ended"),
    ],
)
def test_each_issued_group_is_in_one_state(tmp_path: Path, name: str, value: Any, said: str) -> None:
    made_up = MadeUp()
    made_up.state[name] = value
    assert said in mistakes(made_up, tmp_path)


@pytest.mark.parametrize("name", ["pending", "leased", "scored"])
def test_a_finished_run_has_no_open_group(tmp_path: Path, name: str) -> None:
    made_up = MadeUp()
    made_up.state["withheld"] = {"low_signal": [4]}
    made_up.state[name] = [[1, 7, 1, 1]] if name == "scored" else [7]
    assert mistakes(made_up, tmp_path) == "1 groups are still open"


def test_a_group_that_a_commit_withheld_stays_withheld(tmp_path: Path) -> None:
    made_up = MadeUp()
    made_up.state["withheld"] = {"unparsed": [4], "run_ended": [7]}
    assert (
        mistakes(made_up, tmp_path) == "group 4 was withheld as low_signal by step 2, and is not at the end"
    )


# ---- steps, lineages, ages


def test_a_step_that_was_trained_twice_is_named(tmp_path: Path) -> None:
    made_up = MadeUp()
    made_up.lines.append(commit(3, 2, 5, 6))
    found = mistakes(made_up, tmp_path)
    assert "step 3 was trained 2 times" in found
    assert "group 5 was trained 2 times" in found
    assert "the committed steps are not 1, 2, 3, … up to the final checkpoint" in found


def test_a_step_that_was_not_trained_is_named(tmp_path: Path) -> None:
    made_up = MadeUp()
    del made_up.lines[-1]
    found = mistakes(made_up, tmp_path)
    assert "the committed steps are not 1, 2, 3, … up to the final checkpoint" in found
    assert "step 3 has an experience file and no commit" in found
    assert "group 5 is lost" in found


@pytest.mark.parametrize("who", ["manifest", "learner"])
@pytest.mark.parametrize(("name", "value"), [("step", 2), ("group_ids", []), ("group_ids", [5, 7])])
def test_learner_and_manifest_end_where_the_ledger_ends(
    tmp_path: Path, who: str, name: str, value: Any
) -> None:
    made_up = MadeUp()
    {"manifest": made_up.manifest, "learner": made_up.learner}[who][name] = value
    assert (
        f"the {who} {'ends at step 2' if name == 'step' else 'says that the last step trained'}"
        in mistakes(made_up, tmp_path)
    )


def test_a_lineage_that_was_replaced_writes_nothing_more(tmp_path: Path) -> None:
    made_up = MadeUp()
    made_up.lines.append(commit(3, 1, 4, 5))
    assert (
        mistakes(made_up, tmp_path)
        == "a line of lineage 1 follows the start of lineage 2: the commit of step 3"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (start(1, 3, 1), "a line of lineage 1 follows the start of lineage 2: its start"),
        (start(2, 2, 2), "a ledger of lineage 2 forgot the committed steps 3 to 3"),
        (start(3, 5, 2), "lineage 3 begins at step 5, but only 3 steps were committed"),
        (start(3, 3, 1), "lineage 3 continues lineage 1 at step 3, which lineage 2 committed"),
        (scored(7, 3, 3), "a line of lineage 3 follows the start of lineage 2: scored"),
    ],
)
def test_lineages_only_go_forwards(tmp_path: Path, line: Line, said: str) -> None:
    made_up = MadeUp()
    made_up.lines.append(line)
    assert said in mistakes(made_up, tmp_path)


def test_a_token_that_is_too_old_or_too_new_is_named(tmp_path: Path) -> None:
    made_up = MadeUp()
    made_up.experience[3] = [experience_group(5, 2, 0), experience_group(6, 2, 3)]
    assert mistakes(made_up, tmp_path).splitlines() == [
        "group 5 was 2 versions old at step 3",
        "group 6 has tokens of version 3, which step 3 did not have yet",
    ]


def test_the_age_of_a_group_of_an_older_lineage_counts_too(tmp_path: Path) -> None:
    made_up = MadeUp()
    made_up.lines = [line for line in made_up.lines if line != scored(5, 2, 1)]
    made_up.lines.insert(1, scored(5, 1, 0))
    del made_up.experience[3]
    assert "group 5 was 2 versions old at step 3" in mistakes(made_up, tmp_path)


# ---- files


def test_a_trained_group_without_its_experience_is_named(tmp_path: Path) -> None:
    made_up = MadeUp()
    del made_up.experience[2]
    made_up.experience[3] = [experience_group(5, 2, 1), experience_group(4, 2, 1)]
    assert mistakes(made_up, tmp_path).splitlines() == [
        "step 2 has no experience file for the groups 2, 3",
        "step 3 trained the groups [4, 5] by its experience, [5, 6] by the log",
    ]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"advantage": None}, "has a candidate without an advantage"),
        ({"token_ids_T": [1, 2, 3, 4]}, "has tokens without a version"),
        ({"lineage": 3}, "is of a later lineage, 3"),
        (
            {"status": "unreachable", "score": 2.0, "advantage": 0.0},
            "learns from a candidate whose judge could not be reached",
        ),
        (
            {"opinions": [{"role": "veto", "status": "unreachable"}], "score": None, "advantage": 0.5},
            "learns from a candidate whose judge could not be reached",
        ),
    ],
)
def test_a_group_that_cannot_have_been_trained_like_this_is_named(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    made_up = MadeUp()
    made_up.experience[1][0] = [row | changed for row in experience_group(0, 1, 0)]
    assert mistakes(made_up, tmp_path) == f"group 0 of step 1 {said}"


def test_a_manifest_that_is_missing_or_empty_is_no_checkpoint(tmp_path: Path) -> None:
    folder = MadeUp().write(tmp_path)
    file = folder / "checkpoints" / "step-000003" / "manifest.json"
    good = json.loads(file.read_text())
    for content, said in (
        ("{}", "step-000003/manifest.json is empty, or no object"),
        ("", "step-000003/manifest.json cannot be read"),
        (json.dumps(good | {"files": {}}), "the manifest of step-000003 lists no file"),
        (
            json.dumps(good | {"files": {"hf/config.json": good["files"]["hf/config.json"]}}),
            "does not list ledger.msgpack",
        ),
        (json.dumps(good | {"files": {"../../ledger.log": {}}}), "names ../../ledger.log, which is outside"),
    ):
        file.write_text(content)
        assert said in "\n".join(audit(folder, 1).mistakes)
    file.unlink()
    assert "step-000003 has no manifest.json" in audit(folder, 1).mistakes


def test_a_file_of_the_checkpoint_that_is_not_as_it_was_written_is_named(tmp_path: Path) -> None:
    folder = MadeUp().write(tmp_path)
    (folder / "checkpoints" / "step-000003" / "hf" / "config.json").write_text("[]")
    said = "step-000003/hf/config.json has another checksum than the manifest says"
    assert audit(folder, 1).mistakes == (said,)
    (folder / "checkpoints" / "step-000003" / "deepspeed" / "learner.json").unlink()
    found = audit(folder, 1).mistakes
    assert "deepspeed has no learner.json" in found
    assert "the learner ends at step None, the final checkpoint at 3" in found


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    folder = MadeUp().write(tmp_path)
    log = folder / "ledger.log"
    log.write_bytes(log.read_bytes().replace(b'"step":1,', b'"step":9,', 1) + b'{"format":1')
    assert audit(folder, 1).mistakes[:2] == (
        "ledger.log ends in the middle of a line",
        "line 4 of ledger.log is damaged",
    )


def test_a_finished_run_leaves_nothing_that_waits_for_somebody(tmp_path: Path) -> None:
    folder = MadeUp().write(tmp_path)
    (folder / "spool").mkdir()
    (
        folder / "spool" / "group-7-2-1.arrow"
    ).touch()  # withheld at the end, while a worker was still writing it
    assert audit(folder, 1).mistakes == ()
    (folder / "spool" / "group-6-2-1.arrow").touch()
    (folder / "checkpoints" / "step-000003.aside-2").mkdir()
    (folder / "stop.request").touch()
    (folder / "summary.json").write_text(json.dumps(MadeUp().summary | {"state": "failed", "trained": 4}))
    assert audit(folder, 1).mistakes == (
        "summary.json has state 'failed' instead of 'finished'",
        "summary.json has trained 4 instead of 6",
        "stop.request is left over",
        "checkpoints/step-000003.aside-2 is left over",
        "spool/group-6-2-1.arrow is left over",
    )


# ---- its own readers read what the product writes


def test_the_golden_files_of_each_format_are_read() -> None:
    wrong: list[str] = []
    lines = raw.log_lines(GOLDEN / "ledger.log", wrong)
    assert {line["kind"] for line in lines} == {"lineage", "scored", "commit", "break", "prompts", "heldout"}
    assert {"group_id", "lineage", "version_min", "version_max"} <= lines[1]["group"].keys()
    state = raw.msgpack_map(GOLDEN / "ledger.msgpack", wrong)
    assert {*MadeUp().state} <= state.keys()
    assert {*MadeUp().learner} <= raw.json_object(GOLDEN / "learner.json", wrong).keys()
    assert {*MadeUp().manifest, "files"} <= raw.json_object(GOLDEN / "manifest.json", wrong).keys()
    assert wrong == []


def test_the_golden_experience_is_read(tmp_path: Path) -> None:
    (tmp_path / "step-000001.arrow").write_bytes((GOLDEN / "step.arrow").read_bytes())
    wrong: list[str] = []
    (group, *_) = raw.experience(tmp_path, wrong)[1]
    assert wrong == []
    assert (group.flaws, group.lineage, group.attempt) == ((), 3, 1)
