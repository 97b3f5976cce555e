"""Audit of a run folder: was every issued group trained once, or withheld, in the history that leads to the
final weights?
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgpack

from dynalign.rollout.ledger.log import committed, read
from dynalign.rollout.ledger.state import unpack
from dynalign.rollout.ledger.values import Scored
from dynalign.run_folder import layout
from dynalign.run_folder.checkpoint import newest_whole, verify


@dataclass(frozen=True)
class Audit:
    """Counts of groups, and one sentence for each thing that is wrong."""

    issued: int
    trained: int
    withheld: int
    requeued: int
    late: int
    rolled_back: int
    lineages: int
    steps: int
    mistakes: tuple[str, ...]


def audit(run_folder: Path, max_staleness: int) -> Audit:
    """Of a finished run. Raises CheckpointError or RecordError for files that cannot be read."""
    lines = read(run_folder / layout.LEDGER_LOG)
    newest = newest_whole(run_folder / layout.CHECKPOINTS)
    if newest is None:
        return Audit(0, 0, 0, 0, 0, 0, 0, 0, ("there is no whole checkpoint",))
    manifest = verify(newest)
    unpacked = unpack(msgpack.unpackb((newest / layout.LEDGER_STATE).read_bytes(), strict_map_key=False))
    state, commits = unpacked.state, committed(lines)
    trained = Counter(group_id for commit in commits for group_id in commit.group_ids)
    withheld = set(state.withheld)
    mistakes = [
        f"group {group_id} was trained {times} times"
        for group_id, times in sorted(trained.items())
        if times > 1
    ]
    mistakes += [
        f"group {group_id} was trained and withheld" for group_id in sorted(withheld & trained.keys())
    ]
    mistakes += [
        f"group {group_id} is lost"
        for group_id in range(state.issued)
        if group_id not in trained and group_id not in withheld
    ]
    mistakes += [
        f"group {group_id} was never issued" for group_id in sorted(trained) if group_id >= state.issued
    ]
    if open_groups := len(state.pending) + len(unpacked.leased) + len(state.scored):
        mistakes.append(f"{open_groups} groups are still open")
    if [commit.step for commit in commits] != list(range(1, manifest.step + 1)):
        mistakes.append("the committed steps are not 1, 2, 3, … up to the final checkpoint")
    scored = {
        (line.group.group_id, line.group.lineage): line.group for line in lines if isinstance(line, Scored)
    }
    for commit in commits:
        for group_id in commit.group_ids:
            group = scored.get((group_id, commit.lineage))
            if group is not None and commit.step - 1 - group.version_min > max_staleness:
                age = commit.step - 1 - group.version_min
                mistakes.append(f"group {group_id} was {age} versions old at step {commit.step}")
    counts = state.counts()
    return Audit(
        issued=state.issued,
        trained=sum(trained.values()),
        withheld=len(withheld),
        requeued=counts.requeued,
        late=counts.late,
        rolled_back=counts.rolled_back,
        lineages=manifest.lineage,
        steps=manifest.step,
        mistakes=tuple(mistakes),
    )
