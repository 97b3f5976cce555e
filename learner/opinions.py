"""Whose score is whose among the opinions in a group's records: the judge's own, and those of second judges.

A second judge is one whose whole score stands beside that of the record's judge, as a probe or as a veto.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from dynalign.configs.sections.judge import FROZEN

Opinions = Sequence[Mapping[str, Any]]
"""The opinions on one candidate, as the records hold them (`rollout/records.py`)."""


def is_second(opinion: Mapping[str, Any]) -> bool:
    """Return whether it is the whole score of a judge beside the record's own."""
    whole = not opinion["rubric"] and not opinion["stance"] and opinion["position"] is None
    return whole and opinion["role"] in ("probe", "veto")


def own_scores(record: pa.RecordBatch) -> list[float | None]:
    """Return the score that the record's judge gave each candidate, in points: under a veto, the one before
    it.
    """
    columns = (record.column(name).to_pylist() for name in ("judge", "score", "opinions"))
    return [
        next((each["score"] for each in opinions if _is_before_veto(each, judge, opinions)), score)
        for judge, score, opinions in zip(*columns, strict=True)
    ]


def second_scores(record: pa.RecordBatch) -> list[float | None]:
    """Return the first second judge's score of each candidate, in points; None without one."""
    columns = (record.column(name).to_pylist() for name in ("judge", "opinions"))
    return [
        next((each["score"] for each in opinions if is_second(each) and each["judge"] != judge), None)
        for judge, opinions in zip(*columns, strict=True)
    ]


def frozen_scores(record: pa.RecordBatch) -> list[float | None]:
    """Return the initial policy's score of each candidate, in points, where it is a second judge; None
    without one."""
    return [
        next((each["score"] for each in opinions if is_second(each) and each["judge"] == FROZEN), None)
        for opinions in record.column("opinions").to_pylist()
    ]


def _is_before_veto(opinion: Mapping[str, Any], judge: str, opinions: Opinions) -> bool:
    """Return whether it is the whole score of the record's own judge, which another judge may have
    lowered."""
    whole = not opinion["rubric"] and opinion["judge"] == judge and opinion["role"] == "part"
    return whole and any(each["role"] == "veto" and not each["stance"] for each in opinions)
