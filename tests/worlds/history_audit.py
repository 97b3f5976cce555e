"""What must hold of a random history, read from its files by code of its own."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgpack
import pytest
import xxhash

from dynalign.actors.ledger.ledger_spec import LedgerSpec, ledger_settings
from dynalign.configs.schema import RunSettings
from dynalign.rollout.ledger.log import read
from dynalign.rollout.ledger.restore import restore
from dynalign.rollout.ledger.rules import Ledger
from dynalign.run_folder import layout, spool
from dynalign.run_folder.capability import CapabilityItem
from dynalign.run_folder.heldout import HeldoutItem
from dynalign.run_folder.metrics import read_capability, read_heldout, read_metrics

Find = Callable[[bool, str], None]
Line = dict[str, Any]


def log_lines(folder: Path) -> list[Line]:
    """The whole lines of `ledger.log`; those with a hole are none."""
    content = (folder / "ledger.log").read_bytes()
    return [json.loads(text) for text in content.split(b"\n")[:-1] if b"\0" not in text]


def snapshot_of(folder: Path, step: int) -> Line:
    """The ledger of the checkpoint of `step`; empty for step 0."""
    if step == 0:
        return {}
    path = folder / "checkpoints" / f"step-{step:06d}" / "ledger.msgpack"
    return dict(msgpack.unpackb(path.read_bytes()))


def history(folder: Path) -> dict[int, Line]:
    """Step to its commit, of the history that leads to the newest lineage."""
    commits: dict[int, dict[int, Line]] = {}
    for line in log_lines(folder):
        lineage = line.get("lineage", 0)
        if line["kind"] == "lineage":
            before = commits.get(line["parent"], {})
            commits[lineage] = {step: commit for step, commit in before.items() if step <= line["step"]}
        elif line["kind"] == "commit":
            commits[lineage][line["step"]] = line
    return commits[max(commits)] if commits else {}


def whole(folder: Path, name: str, size_bytes: int, checksum: str) -> bool:
    """Whether a file of the spool is the one that was reported."""
    path = folder / "spool" / name
    if not path.exists():
        return False
    payload = path.read_bytes()
    return (len(payload), xxhash.xxh64_hexdigest(payload)) == (size_bytes, checksum)


def can_be_met(dues: Iterable[tuple[int, int]], version: int, per_step: int) -> set[int]:
    """The groups, of (due version, group id), that leave in time when batches of `per_step` leave from
    `version` on, those due first ahead."""
    left: list[int] = []
    for due, group_id in sorted(dues):
        if version + len(left) // per_step <= due:
            left.append(group_id)
    return set(left)


def audit_opening(folder: Path, spec: LedgerSpec, ledger: Ledger, acknowledged: set[int], find: Find) -> None:
    """A ledger that has just opened. acknowledged: the groups that the ledger before had scored in this
    lineage."""
    state = ledger.state
    snapshot = snapshot_of(folder, spec.step)
    after_cut: list[Line] = []
    for line in log_lines(folder):
        if line["kind"] == "scored" and line["group"]["lineage"] == spec.lineage:
            after_cut.append(line)
    born: dict[int, tuple[int, bool]] = {}
    for row in snapshot.get("scored", ()):
        at, group_id, name, size_bytes, checksum, newest = (row[i] for i in (0, 1, 4, 5, 6, 8))
        there = whole(folder, name, size_bytes, checksum)
        find(there, f"{name}, which the checkpoint of step {spec.step} needs, is gone from the spool")
        born[group_id] = (at, there and newest <= spec.step)
    for line in after_cut:
        group = line["group"]
        there = whole(folder, group["name"], group["size_bytes"], group["checksum"])
        born[group["group_id"]] = (line["born"], there)
    open_ids = set(state.pending) | set(state.scored) | set(state.leased)
    staleness = spec.run.algorithm.max_staleness
    dues = [(at + staleness, i) for i, (at, there) in born.items() if there and i in open_ids]
    kept = can_be_met(dues, state.version, spec.run.rollout.prompts_per_step)
    find(
        set(state.scored) == kept,
        f"of the scored groups {sorted(kept)} whose files are whole, {sorted(state.scored)} were kept",
    )
    unknown = acknowledged - born.keys() - set(state.withheld)
    trained = {i for i in unknown if i < state.issued and i not in open_ids}
    find(unknown == trained, f"the log has nothing of {sorted(unknown - trained)}, which were acknowledged")


def audit_idempotence(folder: Path, spec: LedgerSpec, ledger: Ledger, find: Find) -> None:
    """To die and to be restored once more changes nothing of a ledger that has just opened."""
    settings = ledger_settings(spec.run)
    spooled = spool.scan(folder / layout.SPOOL)
    lines = read(folder / layout.LEDGER_LOG)
    state = ledger.state
    snapshot = snapshot_of(folder, spec.step) or None
    again = restore(settings, ledger.order, snapshot, lines, spooled, spec.lineage)
    for name in ("version", "issued", "trained", "pending", "scored", "withheld", "last_group_ids"):
        before = getattr(state, name)
        after = getattr(again.state, name)
        find(before == after, f"restored again, {name} is {after} instead of {before}")


def audit_end(folder: Path, run: RunSettings, find: Find) -> None:
    """A finished run: its last checkpoint against its log, and what the learner remembers."""
    newest = max(int(path.name[5:]) for path in (folder / "checkpoints").glob("step-??????"))
    place = folder / "checkpoints" / f"step-{newest:06d}"
    learned = json.loads((place / "deepspeed" / "learner.json").read_text())
    commits = history(folder)
    find(newest == run.steps, f"{run.steps} steps, but the newest checkpoint is of step {newest}")
    find(len(learned) == run.steps, f"{run.steps} steps, but the learner knows {len(learned)}")
    find(sorted(commits) == list(range(1, run.steps + 1)), f"the log has commits of steps {sorted(commits)}")
    for step, commit in commits.items():
        groups = sorted(record["group"] for record in learned[step - 1])
        find(sorted(commit["group_ids"]) == groups, f"step {step} trained {groups}, the log says {commit}")
    trained = [record["group"] for records in learned for record in records]
    find(len(trained) == len(set(trained)), f"a group was trained twice: {learned}")
    _audit_law(snapshot_of(folder, newest), trained, find)
    _audit_ages(folder, run, learned, find)


def _audit_law(snapshot: Mapping[str, Any], trained: list[int], find: Find) -> None:
    withheld = [group_id for ids in snapshot["withheld"].values() for group_id in ids]
    left = [*snapshot["pending"], *snapshot["leased"], *(row[1] for row in snapshot["scored"])]
    find(not left, f"after the end {left} are pending, leased or scored")
    everywhere = sorted([*trained, *withheld])
    issued = snapshot["issued"]
    find(everywhere == list(range(issued)), f"{issued} groups were issued, but {everywhere} are known")
    find(snapshot["trained"] == len(trained), f"{snapshot['trained']} counted as trained, {len(trained)} are")


def _audit_ages(folder: Path, run: RunSettings, learned: list[list[Line]], find: Find) -> None:
    """No token is too old, and each was sampled by a policy of the history that leads to the end."""
    starts = {line["lineage"]: line for line in reversed(log_lines(folder)) if line["kind"] == "lineage"}
    last = max(starts)
    until = {last: run.steps}
    while starts[last]["parent"] not in (0, last):
        until[starts[last]["parent"]] = starts[last]["step"]
        last = starts[last]["parent"]
    for step, records in enumerate(learned, start=1):
        for record in records:
            for lineage, version in (record["oldest"], record["newest"]):
                age = step - 1 - version
                find(age <= run.algorithm.max_staleness, f"step {step} trained an age of {age}: {record}")
                known = version == 0 or (lineage in until and version <= until[lineage])
                find(known and age >= 0, f"step {step} trained tokens of a policy that is gone: {record}")


def audit_capability(folder: Path, run: RunSettings, find: Find) -> None:
    """Every point is there, of the versions that it is said to be of, and its change is in one row."""
    if not run.capability.items:
        return
    every = run.capability.every_steps
    points = {point: {item.item: item for item in items} for point, items in read_capability(folder).items()}
    wanted = list(range(0, run.steps, every))
    # A stop may end the wait for one; beside the groups nobody waits.
    some = run.placement.mode == "shared" and {0} <= set(points) <= set(wanted)
    find(some or sorted(points) == wanted, f"of the probes {wanted} there are {sorted(points)}")
    first = points.get(0, {})
    answered = [item for item in first.values() if item.score is not None]
    # A question whose workers die one after another is given up.
    find(30 <= len(answered) <= 32, f"the initial policy has answered {len(answered)} items")
    for point, items in points.items():
        closed = next(iter(items.values())).closed_step
        for item in items.values():
            newest = point if point == 0 or run.placement.mode == "shared" else min(point + every, run.steps)
            in_time = point <= item.version_min <= item.version_max <= closed <= newest
            find(in_time, f"an answer to the probe of step {point} is of another version: {item}")
            right = None if item.answer is None else float(int(item.answer) % 2)
            find(item.score == right, f"{item} is graded wrongly")
    _audit_changes(folder, points, find)


def _audit_changes(folder: Path, points: Mapping[int, Mapping[str, CapabilityItem]], find: Find) -> None:
    changes = {}
    before = {name for name, item in points.get(0, {}).items() if item.score is not None}
    for items in points.values():
        scores = [item.score for name, item in items.items() if item.score is not None and name in before]
        some = next(iter(items.values()))
        if some.step and len(scores) >= 30:
            changes[some.closed_step] = sum(scores) / len(scores)  # every item scored 0 before training
    rows = {row["step"]: row["capability_change"] for row in read_metrics(folder)}
    told = {step: change for step, change in rows.items() if change is not None}
    find(told == pytest.approx(changes), f"the rows say {told}, the probe's answers {changes}")


def audit_heldout(folder: Path, run: RunSettings, find: Find) -> None:
    """Every figure is whole, in its step's row, and of versions that it may be of: one of its own where
    training waited for it, else those since the figure before."""
    if not run.heldout.prompts:
        return
    figures: dict[int, list[HeldoutItem]] = {}
    for item in read_heldout(folder):
        figures.setdefault(item.step, []).append(item)
    rows = {row["step"]: row for row in read_metrics(folder)}
    told = {step for step, row in rows.items() if row["heldout_reward_mean"] is not None}
    scored = {
        step  # a prompt that breaks its workers is given up, and may be the only one
        for step, items in figures.items()
        if any(item.score is not None and not item.prompted for item in items)
    }
    find(told == scored, f"the rows have figures of {sorted(told)}, the file of {sorted(scored)}")
    before = 0
    for step, items in sorted(figures.items()):
        answers = (2 if run.heldout.prompted else 1) * run.heldout.prompts
        find(len(items) == answers, f"the figure of step {step} has {len(items)} answers of {answers}")
        exact = run.heldout.waits or step in (0, run.steps)
        oldest = rows[step]["heldout_version_min"]
        find(oldest == min(item.version_min or 0 for item in items), f"the row of step {step} says {oldest}")
        for item in items:
            span = (item.version_min or 0, item.version_max or 0)
            given_up = item.score is None and not item.completion
            said = f"{span[0]} {span[1]}"
            find(given_up or item.completion == said, f"{item} is of other versions than it says")
            find(span[0] <= span[1] <= step, f"an answer of step {step} is of a version to come: {item}")
            find(not exact or span == (step, step), f"an answer is not of version {step}: {item}")
            find(span[0] >= before, f"an answer is of a version before the figure of {before}: {item}")
        before = step
