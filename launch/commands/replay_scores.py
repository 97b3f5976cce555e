"""`dynalign replay --step N`: every reward and advantage of a step, derived again from its record.

Nothing is asked and nothing is trained: it needs the run folder alone, neither model nor Ray.

    scores       from digits and raw answers, through aspects, models, stances and vetoes
                 (rollout/judges/rederived.py)
    advantages   from the recorded scores, by the learner's formula
    groups       those that the ledger's log says the step has trained, each once
    hashes       of the texts that the run folder keeps, and of the model by the run's checkpoints
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from dynalign.configs.errors import Mistake, RecordError, UserError
from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.configs.user_paths import user_path
from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.rollout.arrow_schema import decode, to_group
from dynalign.rollout.judges.rederived import Difference, differs, rederived
from dynalign.rollout.judges.value_texts import texts_hash, texts_of
from dynalign.rollout.ledger.log import committed, read
from dynalign.rollout.records import Group, ScoringRules
from dynalign.run_folder import checkpoint, layout, value_texts
from dynalign.run_folder.content import model_hash


def check_step(run_folder: Path, step: int) -> int:
    """Prints what differs, a line each, then what was derived. Returns 0 if nothing differs, 1 otherwise.

    Raises UserError for a step whose record is not kept, RecordError for a damaged file."""
    settings = load_run(str(run_folder / layout.CONFIG)).settings
    file = _file(run_folder, step)
    payload = file.read_bytes()
    groups = [to_group(batch) for batch in decode(payload, file.name)]
    if not groups:
        raise RecordError(f"{file} holds no group, and no step trains on none: it was cut; use a copy of it")
    differing = 0
    alone = 0
    for group in groups:
        rules = group.scoring or ScoringRules.of(settings.judge)
        found = rederived(group, rules, settings.judge.samples)
        alone += found.by_themselves
        for difference in (*found.differences, *_other_rules(group, settings)):
            differing += 1
            print(_line(group.group_id, difference))
    others = (
        *_groups(run_folder, step, [group.group_id for group in groups]),
        *_advantages(payload, file.name, settings),
        *_hashes(run_folder, groups, settings),
    )
    for line in others:
        differing += 1
        print(line)
    candidates = sum(len(group.candidates_G) for group in groups)
    derived = f"{candidates - alone} of {candidates} scores and {candidates} advantages derived again"
    print(f"step {step}: {len(groups)} groups, {derived}; {differing or 'nothing'} differs")
    if alone:
        print(f"{alone} scores stand by themselves: a function gave them, or their answers are not recorded")
    return 1 if differing else 0


def _file(run_folder: Path, step: int) -> Path:
    experience = run_folder / layout.EXPERIENCE
    file = layout.experience_file(experience, step)
    if file.exists():
        return file
    kept = sorted(layout.experience_files(experience))
    remedy = f"name one from {kept[0]} to {kept[-1]}" if kept else "train with experience.keep_steps=null"
    raise UserError([Mistake("--step", step, f"{experience} has no record of this step", remedy)])


def _line(group_id: int, difference: Difference) -> str:
    candidate = "" if difference.candidate is None else f" candidate {difference.candidate}"
    values = f"recorded {_shown(difference.recorded)}, derived {_shown(difference.derived)}"
    return f"group {group_id}{candidate}: {difference.what}: {values}"


def _shown(value: float | str | None) -> str:
    return "nothing" if value is None else f"{value:.12g}" if isinstance(value, float | int) else value


def _other_rules(group: Group, settings: RunSettings) -> Iterator[Difference]:
    """The group was scored by other rules than the run's configuration says."""
    if group.scoring is None:
        return
    recorded = asdict(group.scoring)
    for name, said in asdict(ScoringRules.of(settings.judge)).items():
        if recorded[name] != said:
            yield Difference(None, f"judge.{name}", recorded[name], f"{said} by {layout.CONFIG}")


def _groups(run_folder: Path, step: int, recorded: Sequence[int]) -> Iterator[str]:
    """A stream of Arrow records that was cut between two groups is whole for its reader, so they are
    counted."""
    log = run_folder / layout.LEDGER_LOG
    commits = committed(read(log)) if log.exists() else ()
    trained = next((commit.group_ids for commit in commits if commit.step == step), tuple(recorded))
    for group_id in sorted({*recorded, *trained}):
        times = (recorded.count(group_id), trained.count(group_id))
        if times[0] != times[1]:
            yield f"group {group_id}: recorded {times[0]} times, trained {times[1]} times by {log}"


def _advantages(payload: bytes, name: str, settings: RunSettings) -> Iterator[str]:
    scale = settings.algorithm.advantage_scale
    batch = TrainingBatch.of(decode_groups([payload], [name]), scale, settings.judge.consistency_weight)
    for group, derived_G in zip(batch.groups_P, batch.advantages_PG, strict=True):
        recorded_G = group.record.column("advantage").to_pylist()
        for index, (recorded, derived) in enumerate(zip(recorded_G, derived_G, strict=True)):
            if differs(recorded, derived):
                yield _line(group.group_id, Difference(index, "advantage", recorded, derived))


def _hashes(run_folder: Path, groups: Sequence[Group], settings: RunSettings) -> Iterator[str]:
    """Texts and model are those whose hashes the records carry."""
    definitions = {group.definition_hash for group in groups}
    rubrics = {group.rubric_hash for group in groups}
    kept = {each: value_texts.read(run_folder, each) for each in sorted(definitions | rubrics)}
    for content_hash, parts in kept.items():
        if parts is not None and texts_hash(parts.values()) != content_hash:
            file = layout.value_texts_file(run_folder, content_hash)
            yield f"{file}: recorded {content_hash}, the texts there have {texts_hash(parts.values())}"
    if any(parts is None for parts in kept.values()):
        yield from _present_texts(definitions, rubrics, settings)
    models = {group.model_hash for group in groups if group.model_hash}
    for folder in checkpoint.whole(run_folder / layout.CHECKPOINTS).values():
        content = checkpoint.read_manifest(folder).settings.get(checkpoint.CONTENT, {})
        made_with = model_hash(content)
        if made_with and models - {made_with}:
            other = ", ".join(sorted(models - {made_with}))
            yield f"model: recorded {other}, the checkpoint {folder.name} was made with {made_with}"
            return


def _present_texts(definitions: set[str], rubrics: set[str], settings: RunSettings) -> Iterator[str]:
    """The run keeps no texts of its own, so those are compared from which it would continue."""
    values = settings.judge.values
    try:
        texts = texts_of(None if values is None else user_path("judge.values", values), settings.judge)
    except UserError:
        print(f"the texts of judge.values={values} are not here, so their hashes are not compared")
        return
    for name, recorded, now in (
        ("value definition", definitions, texts.definition_hash),
        ("rubric", rubrics, texts.rubric_hash),
    ):
        if recorded - {now}:
            yield f"{name}: recorded {', '.join(sorted(recorded))}, the texts there have {now}"
