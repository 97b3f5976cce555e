"""The name of every file of a run folder, once. What is in a file, and how it is written, stands in the module named behind it.

runs/<name>/
  config.yaml        every setting with its origin                          launch/resume/open_run.py
  owner.json         which driver owns the run, in which lineage            run_folder/owner.py
  ledger.log         every commit, one synced line each                     rollout/ledger/log.py
  spool/             scored groups on their way to the learner              run_folder/spool.py
  checkpoints/       deepspeed/, hf/, ledger.msgpack, manifest.json         run_folder/checkpoint.py
  experience/        every trained group, an Arrow file per step            learner/experience.py
  metrics.jsonl      a row per step                                         run_folder/metrics.py
  heldout.jsonl      every held-out answer                                  run_folder/heldout.py
  tensorboard/       the same curves for TensorBoard                        run_folder/metrics.py
  events.jsonl       what died, why, and how long it took                   run_folder/events.py
  poison.jsonl       prompts that were withheld for breaking workers        run_folder/events.py
  status.json        the run's state, every second while it goes on         run_folder/requests.py
  *.request          pause, resume, stop, scale: left by a shell            run_folder/requests.py
  summary.json       how the run ended                                      launch/summary.py
  report.html        curves, health, samples                                launch/report/report.py
"""

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
TENSORBOARD = "tensorboard"
EVENTS = "events.jsonl"
POISON = "poison.jsonl"
STATUS = "status.json"
SUMMARY = "summary.json"
REPORT = "report.html"

# In a checkpoint's folder.
MANIFEST = "manifest.json"
LEDGER_STATE = "ledger.msgpack"
DEEPSPEED = "deepspeed"
LEARNER_STATE = "learner.json"  # in deepspeed/
EXPORTED_MODEL = "hf"


def step_folder(checkpoints: Path, step: int) -> Path:
    """The folder of the whole checkpoint of `step`."""
    return checkpoints / f"step-{step:06d}"


def aside_folder(checkpoints: Path, step: int, lineage: int) -> Path:
    """Where lineage `lineage` writes the checkpoint of `step` until it is sealed."""
    return checkpoints / f"step-{step:06d}.aside-{lineage}"


def experience_file(experience: Path, step: int) -> Path:
    """The file of the groups that `step` trained."""
    return experience / f"step-{step:06d}.arrow"


def group_file(group_id: int, lineage: int, attempt: int) -> str:
    """The name in the spool of one attempt at one group."""
    return f"group-{group_id}-{lineage}-{attempt}.arrow"


def request_file(run_folder: Path, request: str) -> Path:
    """Where a shell leaves a request for the driver of the run."""
    return run_folder / f"{request}.request"
