"""Audits the folder of a finished run: is every issued group trained once, or withheld for a good reason?

The audit has its own readers (`raw.py`) and its own rules. It compares four records that the product
writes apart:

    ledger.log                       which step committed which groups, in which lineage
    checkpoints/…/ledger.msgpack     the state of every issued group at the end
    checkpoints/…/learner.json       the step and the groups that the learner trained last
    experience/step-*.arrow          the groups of every step, with the weight versions of their tokens
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dynalign.benchmarks.chaos import raw
from dynalign.benchmarks.chaos.history import history
from dynalign.benchmarks.chaos.raw import ExperienceGroup, Fields

NO_SIGNAL = frozenset({"low_signal", "unparsed", "empty"})
"""Reasons about a group's scores: nothing can be learned from them. They are good at any time."""

RUN_ENDED = "run_ended"
"""Reason of the groups that were open at the end of the run: at most those of max_staleness + 1 steps."""

JUDGE_UNREACHABLE = "judge_unreachable"
"""Reason of a group whose judge, or one of its vetoes, gave no answer: good where these were struck."""

POISON = "poison"
"""Reason of a group whose prompt ended its workers. Only prompts that are meant to do so may have it."""

NAMED = 8
"""More group ids than this are counted instead of named."""


@dataclass(frozen=True)
class Audit:
    """Counts of groups, and one sentence for each thing that is wrong.

    Example: ``Audit(issued=40, trained=36, withheld=4, requeued=5, late=1, rolled_back=8, lineages=2,
    steps=9, mistakes=())``
    """

    issued: int
    """Groups issued, by the ledger's state."""
    trained: int
    """Groups in the commits that lead to the final weights."""
    withheld: int
    """Groups withheld, by the ledger's state."""
    requeued: int
    """Times that a group was leased again."""
    late: int
    """Reports refused because their attempt was no longer the current one."""
    rolled_back: int
    """Commits and scored groups undone because the run went back to a checkpoint."""
    lineages: int
    """Lineage of the final checkpoint: starts of a driver or a learner, counted from 1."""
    steps: int
    """Step of the final checkpoint."""
    mistakes: tuple[str, ...]
    """Sentences; empty for a run that lost nothing."""
    unreachable: int = 0
    """Of the withheld groups, those whose judge could not be reached."""


def audit(
    run_folder: Path, max_staleness: int, poison: Collection[str] = (), judge_struck: bool = False
) -> Audit:
    """The account of a finished run that keeps the experience of all its steps.

    max_staleness: the largest allowed age of a trained token, in steps. poison: the prompts that end their
    worker on purpose. judge_struck: whether who judges was struck, so that groups may lack its scores.
    Damaged and missing files are mistakes, not errors.
    """
    wrong: list[str] = []
    lines = raw.log_lines(run_folder / "ledger.log", wrong)
    newest = raw.newest_checkpoint(run_folder / "checkpoints")
    if newest is None:
        return Audit(0, 0, 0, 0, 0, 0, 0, 0, ("there is no whole checkpoint", *wrong))
    step, folder = newest
    manifest = raw.manifest(folder, wrong)
    state = raw.msgpack_map(folder / "ledger.msgpack", wrong)
    learner = raw.json_object(folder / "deepspeed" / "learner.json", wrong)
    summary = raw.json_object(run_folder / "summary.json", wrong)
    experience = raw.experience(run_folder / "experience", wrong)
    poisoned = raw.json_rows(run_folder / "poison.jsonl", wrong)

    commits = history(lines, wrong)
    trained = Counter(group_id for commit in commits for group_id in commit["group_ids"])
    withheld = {group_id: reason for reason, ids in state.get("withheld", {}).items() for group_id in ids}
    wrong += _wrong_steps(step, commits, manifest, state, learner)
    wrong += _wrong_state(state, trained)
    accidents = frozenset({JUDGE_UNREACHABLE} if judge_struck else ())
    meant = _poisoned_groups(lines, poisoned, poison)
    wrong += _wrong_reasons(withheld, commits, max_staleness, meant, accidents)
    wrong += _changed_verdicts(commits, withheld, trained)
    wrong += _wrong_experience(commits, experience)
    wrong += _wrong_ages(commits, experience, lines, max_staleness)
    wrong += _wrong_end(run_folder, step, state, summary, trained)
    return Audit(
        issued=state.get("issued", 0),
        trained=trained.total(),
        withheld=len(withheld),
        requeued=state.get("requeued", 0),
        late=state.get("late", 0),
        rolled_back=state.get("rolled_back", 0),
        lineages=state.get("lineage", 0),
        steps=step,
        mistakes=tuple(wrong),
        unreachable=list(withheld.values()).count(JUDGE_UNREACHABLE),
    )


def _wrong_steps(
    step: int, commits: list[Fields], manifest: Fields, state: Fields, learner: Fields
) -> Iterator[str]:
    """Each step is committed once; log, manifest, ledger and learner end at one step with the same groups."""
    steps = Counter(commit["step"] for commit in commits)
    yield from (
        f"step {each} was trained {times} times" for each, times in sorted(steps.items()) if times > 1
    )
    if [commit["step"] for commit in commits] != list(range(1, step + 1)):
        yield "the committed steps are not 1, 2, 3, … up to the final checkpoint"
    ended = {
        "the manifest": manifest.get("step"),
        "the ledger's state": state.get("version"),
        "the learner": learner.get("step"),
    }
    yield from (
        f"{who} ends at step {at}, the final checkpoint at {step}" for who, at in ended.items() if at != step
    )
    last = sorted(commits[-1]["group_ids"]) if commits else []
    trained = {
        "the manifest": manifest.get("group_ids"),
        "the ledger's state": state.get("last_group_ids"),
        "the learner": learner.get("group_ids"),
    }
    yield from (
        f"{who} says that the last step trained the groups {ids}, the log says {last}"
        for who, ids in trained.items()
        if sorted(ids or ()) != last
    )
    if manifest.get("lineage") != state.get("lineage"):
        lineages = f"{manifest.get('lineage')}, the ledger's state of {state.get('lineage')}"
        yield f"the manifest is of lineage {lineages}"


def _wrong_state(state: Fields, trained: Counter[int]) -> Iterator[str]:
    """Every issued group is in exactly one state, and at the end that is trained or withheld."""
    states: dict[int, list[str]] = defaultdict(list)
    for name in ("pending", "leased"):
        for group_id in state.get(name, ()):
            states[group_id].append(name)
    for row in state.get("scored", ()):
        states[row[1]].append("scored")
    open_groups = len(states)
    for ids in state.get("withheld", {}).values():
        for group_id in ids:
            states[group_id].append("withheld")
    for group_id in trained:
        states[group_id].append("trained")
    issued = state.get("issued", 0)
    for group_id, times in sorted(trained.items()):
        if times > 1:
            yield f"group {group_id} was trained {times} times"
    for group_id, names in sorted(states.items()):
        if len(names) > 1:
            yield f"group {group_id} is in {len(names)} states: {' and '.join(sorted(names))}"
        if group_id >= issued:
            yield f"group {group_id} was never issued"
    if lost := [group_id for group_id in range(issued) if group_id not in states]:
        yield from (f"group {group_id} is lost" for group_id in lost[:NAMED])
        if len(lost) > NAMED:
            yield f"{len(lost)} groups are lost"
    if open_groups:
        yield f"{open_groups} groups are still open"
    law = {name: len(state.get(name, ())) for name in ("pending", "leased", "scored")}
    law |= {"trained": state.get("trained", 0), "withheld": sum(map(len, state.get("withheld", {}).values()))}
    if issued != sum(law.values()):
        terms = " + ".join(f"{name} {count}" for name, count in law.items())
        yield f"the ledger's state breaks the conservation law: issued {issued} is not {terms}"
    if state.get("trained") != trained.total():
        yield f"the ledger's state counts {state.get('trained')} trained groups, the log {trained.total()}"


def _poisoned_groups(lines: Iterable[Fields], rows: Iterable[Fields], poison: Collection[str]) -> set[int]:
    """The groups that may be withheld as poison: the log says so, and their prompt is meant to be.

    A driver that is killed may leave a line out of `poison.jsonl`; any line of the prompt is enough.
    """
    meant = {row["prompt_index"] for row in rows if row["split"] == "train" and row["prompt"] in poison}
    return {
        line["group_id"]
        for line in lines
        if line["kind"] == "break" and line["poison"] and line["prompt_index"] in meant
    }


def _wrong_reasons(
    withheld: dict[int, str],
    commits: list[Fields],
    max_staleness: int,
    poisoned: set[int],
    accidents: Collection[str],
) -> Iterator[str]:
    """Groups that were given up: withheld for an accident, or by an end that left more than could be open."""
    given_up: dict[str, list[int]] = defaultdict(list)
    for group_id, reason in sorted(withheld.items()):
        good = (
            reason in NO_SIGNAL
            or reason in accidents
            or reason == RUN_ENDED
            or (reason == POISON and group_id in poisoned)
        )
        if not good:
            given_up[reason].append(group_id)
    for reason, ids in given_up.items():
        yield f"{len(ids)} groups were given up as {reason}: {_named(ids)}"
    at_most = (max_staleness + 1) * max((len(commit["group_ids"]) for commit in commits), default=0)
    at_the_end = [group_id for group_id, reason in withheld.items() if reason == RUN_ENDED]
    if len(at_the_end) > at_most:
        yield (
            f"{len(at_the_end)} groups were given up as {RUN_ENDED}, but at most {at_most} can be open: "
            f"{_named(at_the_end)}"
        )


def _named(ids: Collection[int]) -> str:
    shown = ", ".join(map(str, sorted(ids)[:NAMED]))
    return shown if len(ids) <= NAMED else f"{shown}, …"


def _changed_verdicts(
    commits: Iterable[Fields], withheld: dict[int, str], trained: Counter[int]
) -> Iterator[str]:
    """A group that a commit withheld stays withheld for that reason, unless a later step trained it."""
    for commit in commits:
        for group_id, reason in commit["withheld"]:
            if withheld.get(group_id) != reason and group_id not in trained:
                step = commit["step"]
                yield f"group {group_id} was withheld as {reason} by step {step}, and is not at the end"


def _wrong_experience(commits: list[Fields], experience: dict[int, list[ExperienceGroup]]) -> Iterator[str]:
    """Each committed step has an experience file with exactly its groups, and no other step has one."""
    lineages = {commit["step"]: commit["lineage"] for commit in commits}
    for commit in commits:
        step = commit["step"]
        if step not in experience:
            yield f"step {step} has no experience file for the groups {_named(commit['group_ids'])}"
            continue
        found = sorted(group.group_id for group in experience[step])
        if found != sorted(commit["group_ids"]):
            committed = sorted(commit["group_ids"])
            yield f"step {step} trained the groups {found} by its experience, {committed} by the log"
        for group in experience[step]:
            yield from (f"group {group.group_id} of step {step} {flaw}" for flaw in group.flaws)
            if group.lineage > lineages[step]:
                yield f"group {group.group_id} of step {step} is of a later lineage, {group.lineage}"
    for step in sorted(experience.keys() - lineages.keys()):
        yield f"step {step} has an experience file and no commit"


def _wrong_ages(
    commits: list[Fields],
    experience: dict[int, list[ExperienceGroup]],
    lines: list[Fields],
    max_staleness: int,
) -> Iterator[str]:
    """No trained token is older than allowed, or newer than the weights that its step began with.

    Where a step has no experience file, the versions of the group's last report count.
    """
    reported = {line["group"]["group_id"]: line["group"] for line in lines if line["kind"] == "scored"}
    for commit in commits:
        step = commit["step"]
        begins_at = step - 1
        versions = {group.group_id: group.versions for group in experience.get(step, ())}
        for group_id in commit["group_ids"]:
            report = reported.get(group_id)
            logged = () if report is None else (report["version_min"], report["version_max"])
            found = versions.get(group_id, logged)
            if found and begins_at - min(found) > max_staleness:
                yield f"group {group_id} was {begins_at - min(found)} versions old at step {step}"
            if found and max(found) > begins_at:
                newest = max(found)
                yield f"group {group_id} has tokens of version {newest}, which step {step} did not have yet"


def _wrong_end(
    run_folder: Path, step: int, state: Fields, summary: Fields, trained: Counter[int]
) -> Iterator[str]:
    """The run says that it is finished, its summary agrees, and it has left no request and no open file."""
    if not state.get("ended"):
        yield "the ledger's state does not say that the run has ended"
    expected = {"state": "finished", "step": step, "issued": state.get("issued"), "trained": trained.total()}
    for name, value in expected.items():
        if summary and summary.get(name) != value:
            yield f"summary.json has {name} {summary.get(name)!r} instead of {value!r}"
    yield from (f"{file.name} is left over" for file in sorted(run_folder.glob("*.request")))
    yield from (
        f"checkpoints/{folder.name} is left over"
        for folder in sorted((run_folder / "checkpoints").glob("*.aside-*"))
    )
    # A worker may still write a group that the end of the run withheld. A trained group's file must be gone.
    for file in sorted((run_folder / "spool").glob("group-*-*-*.arrow")):
        if int(file.name.split("-")[1]) in trained:
            yield f"spool/{file.name} is left over"


def mirror_mistakes(mirror: Path, step: int) -> list[str]:
    """What is wrong with the mirror of a run that ended at `step`: that checkpoint must be complete there."""
    wrong: list[str] = []
    newest = raw.newest_checkpoint(mirror)
    if newest is None or newest[0] != step:
        return [f"the mirror ends at step {0 if newest is None else newest[0]}, the run at {step}"]
    raw.manifest(newest[1], wrong)
    return [f"in the mirror: {mistake}" for mistake in wrong]
