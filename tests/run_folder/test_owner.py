"""Who owns a run folder, and who is told to stop."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from dynalign.configs.errors import RecordError, StaleLineage, UserError
from dynalign.run_folder import owner
from dynalign.run_folder.owner import YOUNG_S, Owner


def stamp(folder: Path, **changes: object) -> None:
    path = folder / "owner.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_first_driver_of_a_run_folder_has_lineage_1(tmp_path: Path) -> None:
    mine = owner.acquire(tmp_path / "run", now_s=1000.0, job="raysubmit_1")
    found = owner.read(tmp_path / "run")
    assert found == mine.stamp
    assert (mine.lineage, mine.stamp.host, mine.stamp.pid) == (1, socket.gethostname(), os.getpid())
    owner.check(tmp_path / "run", 1)


def test_a_second_driver_is_refused_while_the_beat_is_young(tmp_path: Path) -> None:
    owner.acquire(tmp_path, now_s=1000.0, job="raysubmit_1").beat(now_s=1010.0)
    with pytest.raises(UserError) as caught:
        owner.acquire(tmp_path, now_s=1010.0 + YOUNG_S - 1)
    (mistake,) = caught.value.mistakes
    process = f"process {os.getpid()} on {socket.gethostname()}, job raysubmit_1"
    assert mistake.rule == f"in use by {process}, whose last beat is 29 s old"
    assert "stop that run first" in mistake.remedy


def test_an_old_beat_is_taken_over_in_the_next_lineage_and_the_first_driver_stops(tmp_path: Path) -> None:
    first = owner.acquire(tmp_path, now_s=1000.0)
    second = owner.acquire(tmp_path, now_s=1000.0 + YOUNG_S)
    assert second.lineage == 2
    for late in (first.beat, first.release, first.new_lineage):
        with pytest.raises(StaleLineage, match="lineage 1 was replaced by lineage 2"):
            late(1031.0)
    assert owner.read(tmp_path) == second.stamp


def test_a_released_folder_is_free_at_once(tmp_path: Path) -> None:
    owner.acquire(tmp_path, now_s=1000.0).release(now_s=1001.0)
    assert owner.acquire(tmp_path, now_s=1001.0).lineage == 2


def test_a_dead_process_of_this_host_is_replaced_at_once(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    owner.acquire(tmp_path, now_s=1000.0)
    stamp(tmp_path, pid=ended.pid)
    assert owner.acquire(tmp_path, now_s=1001.0).lineage == 2


def test_a_zombie_is_dead(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as ended:
        started_s = psutil.Process(ended.pid).create_time()
        owner.acquire(tmp_path, now_s=1000.0)
        stamp(tmp_path, pid=ended.pid, started_s=started_s)
        with pytest.raises(UserError):
            owner.acquire(tmp_path, now_s=1001.0)
        os.kill(ended.pid, 9)
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # ended, and not reaped yet
        assert owner.acquire(tmp_path, now_s=1001.0).lineage == 2


def test_another_process_with_the_same_pid_is_not_taken_for_the_driver(tmp_path: Path) -> None:
    mine = owner.acquire(tmp_path, now_s=1000.0)
    stamp(tmp_path, started_s=mine.stamp.started_s - 100.0)
    assert owner.acquire(tmp_path, now_s=1001.0).lineage == 2


def test_a_process_of_another_host_counts_as_alive_while_its_beat_is_young(tmp_path: Path) -> None:
    owner.acquire(tmp_path, now_s=1000.0)
    stamp(tmp_path, host="elsewhere", pid=2**22 + 1)
    with pytest.raises(UserError, match="on elsewhere"):
        owner.acquire(tmp_path, now_s=1029.0)


def test_a_driver_in_another_pid_namespace_of_this_host_counts_as_alive_while_its_beat_is_young(
    tmp_path: Path,
) -> None:
    owner.acquire(tmp_path, now_s=1000.0)
    stamp(tmp_path, pid=999_999, pid_namespace="pid:[1]")
    with pytest.raises(UserError, match="in use by process 999999"):
        owner.acquire(tmp_path, now_s=1001.0)
    assert owner.acquire(tmp_path, now_s=1000.0 + YOUNG_S).lineage == 2


def test_a_driver_of_another_machine_with_this_host_name_counts_as_alive_while_its_beat_is_young(
    tmp_path: Path,
) -> None:
    owner.acquire(tmp_path, now_s=1000.0)
    stamp(tmp_path, pid=999_999, boot="another")
    with pytest.raises(UserError, match="in use by process 999999"):
        owner.acquire(tmp_path, now_s=1001.0)


def test_a_stamp_of_an_older_version_says_nothing_of_boot_and_namespace_and_is_read(tmp_path: Path) -> None:
    owner.acquire(tmp_path, now_s=1000.0)
    path = tmp_path / "owner.json"
    body = json.loads(path.read_text())
    path.write_text(json.dumps({key: body[key] for key in body.keys() - {"boot", "pid_namespace"}}))
    assert owner.read(tmp_path) is not None
    stamp(tmp_path, pid=999_999)
    assert owner.acquire(tmp_path, now_s=1001.0).lineage == 2, "its process is dead"


def test_a_beat_from_the_future_does_not_block_a_takeover(tmp_path: Path) -> None:
    owner.acquire(tmp_path, now_s=1000.0 + 3600.0)
    stamp(tmp_path, host="elsewhere")
    assert owner.acquire(tmp_path, now_s=1000.0).lineage == 2


def test_a_rollback_begins_a_new_lineage_for_the_same_driver(tmp_path: Path) -> None:
    mine = owner.acquire(tmp_path, now_s=1000.0)
    assert mine.new_lineage(now_s=1005.0) == 2 == mine.lineage
    mine.beat(now_s=1006.0)
    with pytest.raises(StaleLineage):
        owner.check(tmp_path, 1)


def test_a_lost_owner_file_does_not_reuse_a_lineage(tmp_path: Path) -> None:
    first = owner.acquire(tmp_path, now_s=1000.0)
    (tmp_path / "owner.json").unlink()
    with pytest.raises(RecordError, match="nobody owns"):
        first.beat(now_s=1001.0)
    assert owner.acquire(tmp_path, now_s=1001.0, newest_lineage=1).lineage == 2


def test_of_drivers_that_start_together_one_wins(tmp_path: Path) -> None:
    def attempt(_: int) -> Owner | None:
        try:
            return owner.acquire(tmp_path, now_s=1000.0)
        except UserError:
            return None

    with ThreadPoolExecutor(8) as threads:
        won = [mine for mine in threads.map(attempt, range(8)) if mine is not None]
    assert [mine.lineage for mine in won] == [1]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}', '{"format": 1, "lineage": 1}'])
def test_a_damaged_owner_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "owner.json").write_text(content)
    with pytest.raises(RecordError, match=r"owner\.json is damaged"):
        owner.acquire(tmp_path, now_s=1000.0)


def test_a_new_run_folder_is_its_user_s_alone_and_one_that_is_there_keeps_its_permissions(
    tmp_path: Path,
) -> None:
    owner.acquire(tmp_path / "runs" / "new", now_s=1.0)
    assert (tmp_path / "runs" / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o755)
    owner.acquire(tmp_path / "shared", now_s=1.0)
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o755
