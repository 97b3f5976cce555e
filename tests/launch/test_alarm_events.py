"""Alarms in events.jsonl: each change once, over several drivers too."""

from pathlib import Path

from dynalign.launch.alarm_events import AlarmEvents
from dynalign.run_folder import layout
from dynalign.run_folder.events import EventLog, read_events
from dynalign.run_folder.run_status import AlarmStatus

LENGTH = AlarmStatus("length_gaming", 81, 85, "pause", "correlation of score and length 0.71: say so")
DRIFT = AlarmStatus("value_drift", 90, 93, "warn", "rank correlation 0.1: compare samples")


def told(folder: Path, *firing: tuple[AlarmStatus, ...]) -> list[tuple[str, str, str]]:
    """(alarm, what, action) of every event, after one driver has told of these."""
    events = AlarmEvents(folder, EventLog(folder, lambda: 1))
    for each in firing:
        events.tell(each)
    return [(event.actor, event.what, event.cause) for event in read_events(folder)]


def test_an_alarm_is_one_line_when_it_fires_and_one_when_it_is_silent_again(tmp_path: Path) -> None:
    assert told(tmp_path, (), (LENGTH,), (LENGTH, DRIFT), (DRIFT,)) == [
        ("length_gaming", "fired", "pause"),
        ("value_drift", "fired", "warn"),
        ("length_gaming", "cleared", ""),
    ]
    assert read_events(tmp_path)[0].detail == LENGTH.words


def test_the_next_driver_repeats_nothing_and_says_what_is_silent_by_then(tmp_path: Path) -> None:
    told(tmp_path, (LENGTH, DRIFT))
    assert told(tmp_path, (DRIFT,))[2:] == [("length_gaming", "cleared", "")]


def test_a_damaged_file_costs_the_memory_of_earlier_drivers_and_no_run(tmp_path: Path) -> None:
    (tmp_path / layout.EVENTS).write_text("{}\nnot JSON\n")
    AlarmEvents(tmp_path, EventLog(tmp_path, lambda: 1)).tell((LENGTH,))
    assert "length_gaming" in (tmp_path / layout.EVENTS).read_text()
