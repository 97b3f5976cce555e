"""The account of a run folder finds what is lost, doubled or too old, and nothing in a folder that is
right."""

from pathlib import Path

import pytest

from dynalign.benchmarks.chaos.audit import audit
from dynalign.rollout.ledger.log import LedgerLog, committed, read
from dynalign.rollout.ledger.values import Commit
from tests.actors.coordinator.test_coordinator import told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return told(tmp_path_factory.mktemp("run"), 12, "ledger after")[0].place.folder


def test_a_run_whose_ledger_died_is_accounted_for(folder: Path) -> None:
    found = audit(folder, max_staleness=1)
    assert found.mistakes == ()
    assert (found.issued, found.trained, found.steps) == (found.trained + found.withheld, 8, 4)


def test_a_token_that_is_too_old_is_named(folder: Path) -> None:
    assert any("versions old at step" in mistake for mistake in audit(folder, max_staleness=-1).mistakes)


def test_a_group_that_is_trained_twice_or_lost_is_named(tmp_path: Path) -> None:
    folder = told(tmp_path, 0, "nobody")[0].place.folder
    last = committed(read(folder / "ledger.log"))[-1]
    log = LedgerLog(folder / "ledger.log")
    log.append(Commit(last.step + 1, last.lineage, last.group_ids, ()), durable=False)
    log.close()
    doubled = audit(folder, max_staleness=1).mistakes
    assert f"group {last.group_ids[0]} was trained 2 times" in doubled
    assert "the committed steps are not 1, 2, 3, … up to the final checkpoint" in doubled
    lines = (folder / "ledger.log").read_text().splitlines(keepends=True)
    kept = [line for line in lines if f'"group_ids":[{last.group_ids[0]},' not in line]
    (folder / "ledger.log").write_text("".join(kept))
    assert f"group {last.group_ids[0]} is lost" in audit(folder, max_staleness=1).mistakes


def test_a_run_without_a_checkpoint_is_no_finished_run(tmp_path: Path) -> None:
    (tmp_path / "ledger.log").write_text("")
    assert audit(tmp_path, max_staleness=1).mistakes == ("there is no whole checkpoint",)
