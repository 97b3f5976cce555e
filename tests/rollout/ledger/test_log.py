"""The ledger's log: what is read back, what a crash may leave behind, what is refused, which commits
count."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.configs.errors import RecordError, ReplacedLedger
from dynalign.rollout.ledger.evaluation_leases import EvaluationKey, EvaluationResult
from dynalign.rollout.ledger.log import LedgerLog, committed, encode, read
from dynalign.rollout.ledger.log_lines import LogLine
from dynalign.rollout.ledger.values import Commit, LineageStart, Scored, ScoredGroup
from dynalign.run_folder.spool import SpoolEntry

GROUP = ScoredGroup(3, 1, 1, SpoolEntry("group-3-1-1.arrow", 100, "00ff"), 0, 1)
LINES: tuple[LogLine, ...] = (
    LineageStart(1, 0, 0),
    Scored(GROUP, leased_at_version=0),
    Commit(1, 1, (3, 4), ((2, "low_signal"), (5, "prompt ü\n"))),
    EvaluationResult(EvaluationKey(1, 0, 1, 1), 2.5, 4, "Größe\n", False, 31, 1, 1),
    EvaluationResult(EvaluationKey(1, 1, 1, 1), None, 0, "", True, 31, 1, 1),
    Commit(2, 1, (6, 7), ()),
)


def written(folder: Path) -> Path:
    path = folder / "ledger.log"
    log = LedgerLog(path)
    for line in LINES:
        log.append(line, durable=isinstance(line, Commit))
    log.close()
    return path


def read_or_refusal(path: Path) -> tuple[LogLine, ...] | str:
    try:
        return read(path)
    except RecordError as error:
        return str(error)


def test_the_log_reads_back_what_was_appended_and_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert read(path) == LINES
    log = LedgerLog(path)
    assert log.lines == LINES
    log.append(Commit(3, 1, (8,), ()), durable=True)
    assert read(path) == (*LINES, Commit(3, 1, (8,), ()))


def test_a_line_is_json_with_a_format_and_a_checksum() -> None:
    assert encode(Commit(2, 1, (6, 7), ())) == (
        b'{"format":1,"group_ids":[6,7],"kind":"commit","lineage":1,"step":2,"withheld":[],"checksum":"43cd0073"}\n'
    )


def test_wherever_the_last_line_is_torn_it_is_dropped_and_the_next_line_starts_clean(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    start_of_last = whole[:-1].rfind(b"\n") + 1
    for size in range(start_of_last, len(whole)):
        path.write_bytes(whole[:size])
        log = LedgerLog(path)
        assert log.lines == LINES[:-1]
        log.append(LINES[-1], durable=True)
        log.close()
        assert path.read_bytes() == whole


def test_a_flipped_bit_is_never_read_as_another_event(tmp_path: Path) -> None:
    """All over the file: the damage is named with its line, unless it hides the end of the last line or means
    the same."""
    path = written(tmp_path)
    whole = path.read_bytes()
    ends = [index for index, byte in enumerate(whole) if byte == ord("\n")]
    for bit in range(0, 8 * len(whole), 3):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        if bit // 8 == ends[-1]:
            assert read(path) == LINES[:-1]
            continue
        line = sum(end < bit // 8 for end in ends) + 1
        outcome = read_or_refusal(path)
        assert outcome == LINES or str(outcome).startswith(f"{path}: line {line} is damaged or unknown: ")


def test_an_unknown_format_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "ledger.log"
    path.write_bytes(encode(LINES[0]) + encode(LINES[1]).replace(b'"format":1', b'"format":2'))
    with pytest.raises(
        RecordError, match=r"ledger\.log: line 2 is damaged or unknown: format 2, this version reads 1"
    ):
        LedgerLog(path)


def test_commits_after_the_step_where_a_later_lineage_begins_are_superseded() -> None:
    ones = [Commit(step, 1, (2 * step,), ()) for step in (1, 2, 3)]
    twos = [Commit(step, 2, (2 * step + 1,), ()) for step in (2, 3)]
    stale = Commit(4, 1, (99,), ())
    lines: list[LogLine] = [
        LineageStart(1, 0, 0),
        *ones,
        LineageStart(2, 1, 1),
        twos[0],
        stale,
        LineageStart(2, 2, 2),
        twos[1],
    ]
    assert committed(lines) == (ones[0], *twos)
    assert committed([*lines, LineageStart(3, 2, 1)]) == (
        ones[0],
        ones[1],
    )  # goes on from lineage 1 after all
    assert committed([*lines, LineageStart(3, 0, 0)]) == ()
    assert committed([]) == ()


commits = st.builds(
    Commit,
    st.integers(1),
    st.integers(1),
    st.lists(st.integers(0)).map(tuple),
    st.lists(st.tuples(st.integers(0), st.text())).map(tuple),
)


@given(st.lists(commits, max_size=5))
def test_any_commit_is_one_line_and_reads_back(
    tmp_path_factory: pytest.TempPathFactory, events: list[Commit]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.log"
    path.write_bytes(b"".join(map(encode, events)))
    assert path.read_bytes().count(b"\n") == len(events)
    assert read(path) == tuple(events)


def test_an_unsynced_tail_with_a_hole_loses_only_what_was_never_written(tmp_path: Path) -> None:
    """A power cut may write back a later page and not the one before it."""
    path = written(tmp_path)
    later = Scored(GROUP._replace(group_id=4), leased_at_version=1)
    unsynced = encode(later)
    path.write_bytes(path.read_bytes() + b"\0" * 200 + b"\n" + unsynced)
    log = LedgerLog(path)
    assert log.lines == (*LINES, later)
    assert b"\0" not in path.read_bytes()


def test_a_hole_before_a_line_that_was_synced_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    content = path.read_bytes()
    line = encode(LINES[1])
    path.write_bytes(content.replace(line, b"\0" * (len(line) - 1) + b"\n"))
    with pytest.raises(RecordError, match="line 2 is damaged"):
        LedgerLog(path)


def test_a_ledger_that_was_replaced_can_write_nothing_more_into_the_log(tmp_path: Path) -> None:
    path = tmp_path / "ledger.log"
    replaced = LedgerLog(path)
    replaced.append(*LINES, durable=True)
    serving = LedgerLog(path)
    assert serving.lines == LINES
    before = path.read_bytes()
    for durable in (False, True):
        with pytest.raises(ReplacedLedger):
            replaced.append(Commit(3, 1, (8,), ()), durable=durable)
    with pytest.raises(ReplacedLedger):
        replaced.rewrite(lambda lines: lines)
    assert path.read_bytes() == before
    serving.append(Commit(3, 1, (9,), ()), durable=True)
    assert read(path) == (*LINES, Commit(3, 1, (9,), ()))
