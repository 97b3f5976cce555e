"""The name of every file of a run folder, once. The module behind a name says what the file contains, and
writes it.

runs/<name>/
  config.yaml        every setting with its origin                          launch/resume/open_run.py
  owner.json         which driver owns the run, in which lineage            run_folder/owner.py
  owner.lock         held for the milliseconds of a change of owner.json    run_folder/owner.py
  ledger.log         every commit, one synced line each                     rollout/ledger/log.py
  spool/             scored groups on their way to the learner              run_folder/spool.py
  checkpoints/       deepspeed/, hf/, ledger.msgpack, manifest.json         run_folder/checkpoint.py
  experience/        every trained group, an Arrow file per step            learner/experience.py
  metrics.jsonl      a row per step                                         run_folder/metrics.py
  heldout.jsonl      every held-out answer                                  run_folder/metrics.py
  capability.jsonl   every answer to the capability probe, with its score   run_folder/metrics.py
  tensorboard/       the same curves for TensorBoard                        run_folder/metrics.py
  events.jsonl       which actor died, why, and how long recovery took      run_folder/events.py
  answers.sqlite     what an endpoint was asked and has answered            endpoint/journal.py
  poison.jsonl       prompts that were withheld for breaking workers        run_folder/poison.py
  withheld.jsonl     groups that are never trained, and why                 run_folder/withheld_groups.py
  value-texts/       definition and rubrics, a file for each hash           run_folder/value_texts.py
  added-prompts/     prompts that came to the run, a file for each set      rollout/added_prompts.py
  refreshes/         the sets that they come from                           launch/commands/prompts_refresh.py
  status.json        the state of the run, every second while it lasts      run_folder/requests.py
  *.request          pause, resume, stop, scale, prompts: left by a shell   run_folder/requests.py
  summary.json       how the run ended                                      launch/summary.py
  report.html        curves, health, samples                                launch/report/report.py
"""

import re
from pathlib import Path

CONFIG = "config.yaml"
OWNER = "owner.json"
OWNER_LOCK = "owner.lock"
LEDGER_LOG = "ledger.log"
SPOOL = "spool"
CHECKPOINTS = "checkpoints"
EXPERIENCE = "experience"
METRICS = "metrics.jsonl"
HELDOUT = "heldout.jsonl"
CAPABILITY = "capability.jsonl"
TENSORBOARD = "tensorboard"
EVENTS = "events.jsonl"
ANSWERS = "answers.sqlite"
POISON = "poison.jsonl"
WITHHELD = "withheld.jsonl"
VALUE_TEXTS = "value-texts"
ADDED_PROMPTS = "added-prompts"
REFRESHES = "refreshes"
STATUS = "status.json"
SUMMARY = "summary.json"
REPORT = "report.html"

PRIVATE = 0o700
"""Permissions of a new run folder: prompts, answers and weights are for its user alone. One that is there
already keeps its own."""

# In the folder of a checkpoint.
MANIFEST = "manifest.json"
LEDGER_STATE = "ledger.msgpack"
DEEPSPEED = "deepspeed"
LEARNER_STATE = "learner.json"  # in deepspeed/
EXPORTED_MODEL = "hf"

_STEP = re.compile(r"step-(\d{6,})")
_GROUP = re.compile(r"group-(\d+)-\d+-\d+\.arrow")


def step_folder(checkpoints: Path, step: int) -> Path:
    """The folder of the complete checkpoint of `step`."""
    return checkpoints / f"step-{step:06d}"


def aside_folder(checkpoints: Path, step: int, lineage: int, writer: str = "") -> Path:
    """Where lineage `lineage` writes the checkpoint of `step` until it is complete. writer: tells two writers
    of a lineage apart, a coordinator that hung and the one that replaced it."""
    return checkpoints / f"step-{step:06d}.aside-{lineage}{writer and f'-{writer}'}"


def replaced_folder(checkpoints: Path, step: int) -> Path:
    """Where a checkpoint of `step` goes that another one replaces. Lineages count from 1, so none writes
    there."""
    return aside_folder(checkpoints, step, 0)


def aside_folders(checkpoints: Path) -> list[Path]:
    """The folders of incomplete or replaced checkpoints."""
    return list(checkpoints.glob("step-*.aside-*"))


def step_of(name: str) -> int | None:
    """The step of a checkpoint's folder, by its final name; None for any other name."""
    match = _STEP.fullmatch(name)
    return None if match is None else int(match[1])


def checkpoint_folders(checkpoints: Path) -> dict[int, Path]:
    """Step → folder, of everything with the final name of a checkpoint, newest step first."""
    named = {step: path for path in checkpoints.glob("step-*") if (step := step_of(path.name)) is not None}
    return dict(sorted(named.items(), reverse=True))


def is_plain_name(name: str) -> bool:
    """Whether a file's name from a manifest is a relative path that stays inside its folder, spelled in the
    one plain way: no "..", no root, no empty part, no backslash."""
    parts = name.split("/")
    return all(part not in ("", ".", "..") for part in parts) and not {"\\", "\0"} & set(name)


def experience_file(experience: Path, step: int) -> Path:
    """The file of the groups that `step` trained."""
    return experience / f"step-{step:06d}.arrow"


def experience_files(experience: Path) -> dict[int, Path]:
    """Step → its file, of all steps whose groups are kept."""
    files = {step_of(file.stem): file for file in experience.glob("step-*.arrow")}
    return {step: file for step, file in files.items() if step is not None}


def group_file(group_id: int, lineage: int, attempt: int) -> str:
    """The name in the spool of one attempt at one group."""
    return f"group-{group_id}-{lineage}-{attempt}.arrow"


def is_group_file(name: str) -> bool:
    """Whether `group_file` gives such names."""
    return _GROUP.fullmatch(name) is not None


def group_files(spool: Path) -> list[Path]:
    """The files of groups in the spool, sorted by name."""
    return sorted(file for file in spool.glob("*.arrow") if is_group_file(file.name))


def group_of(name: str) -> int | None:
    """The group of a file in the spool, by its name; None for a name that `group_file` does not give."""
    match = _GROUP.fullmatch(name)
    return None if match is None else int(match[1])


def request_file(run_folder: Path, request: str) -> Path:
    """Where a shell leaves a request for the driver of the run."""
    return run_folder / f"{request}.request"


def added_prompts_file(run_folder: Path, content_hash: str) -> Path:
    """The prompts that came to the run under this hash."""
    return run_folder / ADDED_PROMPTS / f"{content_hash}.json"


def value_texts_file(run_folder: Path, content_hash: str) -> Path:
    """The texts of the value whose hash this is."""
    return run_folder / VALUE_TEXTS / f"{content_hash}.json"


def refresh_folder(run_folder: Path, number: int) -> Path:
    """The set of prompts of the n-th refresh, from 1."""
    return run_folder / REFRESHES / f"refresh-{number}"


def refresh_decision(run_folder: Path, number: int) -> Path:
    """What was decided before the set of the n-th refresh was begun."""
    return run_folder / REFRESHES / f"refresh-{number}.json"


def refresh_numbers(run_folder: Path) -> list[int]:
    """The refreshes that were begun, ascending."""
    names = (path.stem.removeprefix("refresh-") for path in (run_folder / REFRESHES).glob("refresh-*.json"))
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def run_folders(runs: Path) -> list[Path]:
    """The folders of runs that were started in `runs`, sorted by name."""
    return sorted(config.parent for config in runs.glob(f"*/{CONFIG}"))
