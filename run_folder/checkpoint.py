"""Checkpoints on disk: one consistent cut of weights, optimizer, schedule and ledger, or nothing.

    checkpoints/step-000010.aside-3/   being written by lineage 3; never read
    checkpoints/step-000010/           whole: deepspeed/, hf/, ledger.msgpack, and manifest.json, written last

The manifest lists every file with size and checksum. A folder gets its final name after all of it is on the disk, so a crash at
any moment leaves the checkpoint before it in place.
"""

import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from dynalign.configs.errors import CheckpointError, Mistake
from dynalign.configs.schema import RunSettings
from dynalign.run_folder import layout
from dynalign.run_folder.durable import sync
from dynalign.run_folder.layout import aside_folder, step_folder

FORMAT = 1
_STEP = re.compile(r"step-(\d{6,})")
_READ_BYTES = 1 << 22


@dataclass(frozen=True)
class FileEntry:
    """xxh64 of the file's bytes, and how many they are."""

    size_bytes: int
    checksum: str


@dataclass(frozen=True)
class CheckpointManifest:
    """group_ids: the groups of the last trained step. settings: `fixed_settings` of the run that wrote it. files: by relative path."""

    run: str
    lineage: int
    step: int
    group_ids: tuple[int, ...]
    settings: dict[str, Any]
    files: dict[str, FileEntry]


def fixed_settings(settings: RunSettings, prompts_hash: str) -> dict[str, Any]:
    """The settings that may not change when a run is resumed, by dotted path: another value would not fit the saved state, or
    would make the history before and after incomparable."""
    learner, rollout, judge = settings.learner, settings.rollout, settings.judge
    return {
        "model": settings.model,
        "seed": settings.seed,
        "prompts": prompts_hash,
        "rollout.group_size": rollout.group_size,
        "rollout.prompts_per_step": rollout.prompts_per_step,
        "judge": judge.model_dump(mode="json", exclude={"noise_fraction"}),
        "algorithm.advantage_scale": settings.algorithm.advantage_scale,
        "algorithm.loss_aggregation": settings.algorithm.loss_aggregation,
        "learner.ranks": learner.ranks,
        "learner.zero_stage": learner.zero_stage,
        "learner.precision": learner.precision,
        "learner.lora": None if learner.lora is None else learner.lora.model_dump(mode="json"),
    }


def contradictions(checkpoint: CheckpointManifest, settings: RunSettings, prompts_hash: str) -> list[Mistake]:
    """Why a run with `settings` cannot continue this checkpoint; one mistake per setting, none if it can."""
    wanted = fixed_settings(settings, prompts_hash)
    mistakes = [
        Mistake(
            place,
            wanted.get(place),
            f"the checkpoint was made with {value!r}",
            "set it back, or start a new run",
        )
        for place, value in checkpoint.settings.items()
        if wanted.get(place) != value
    ]
    if settings.steps < checkpoint.step:
        rule = f"the run has already trained {checkpoint.step} steps"
        mistakes.append(
            Mistake("steps", settings.steps, rule, f"set it to {checkpoint.step} or more, or start a new run")
        )
    return mistakes


def _checksum(file: Path) -> str:
    digest = xxhash.xxh64()
    with file.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def seal(
    checkpoints: Path, run: str, lineage: int, step: int, group_ids: tuple[int, ...], settings: dict[str, Any]
) -> Path:
    """Turns the folder aside, in which everything has been written, into the checkpoint of `step`; returns its folder.

    A checkpoint of the same step, which a lineage before this one left, is replaced.
    """
    aside, folder = aside_folder(checkpoints, step, lineage), step_folder(checkpoints, step)
    files: dict[str, FileEntry] = {}
    for path in sorted(aside.rglob("*")):
        sync(path)
        if path.is_file() and path.name != layout.MANIFEST:
            files[path.relative_to(aside).as_posix()] = FileEntry(path.stat().st_size, _checksum(path))
    manifest = CheckpointManifest(run, lineage, step, group_ids, settings, files)
    (aside / layout.MANIFEST).write_text(encode_manifest(manifest))
    sync(aside / layout.MANIFEST)
    sync(aside)
    if folder.exists():
        folder.rename(
            aside_folder(checkpoints, step, 0)
        )  # no lineage is 0: the replaced one, until `clear_aside`
    aside.rename(folder)
    sync(checkpoints)
    return folder


def read_manifest(folder: Path) -> CheckpointManifest:
    """:raises CheckpointError: there is no readable manifest in `folder`, or it has an unknown format."""
    file = folder / layout.MANIFEST
    try:
        return decode_manifest(file.read_text(), str(file))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error!r}); {_way_out(folder.name)}") from error


def encode_manifest(manifest: CheckpointManifest) -> str:
    return json.dumps({"format": FORMAT} | asdict(manifest), indent=1)


def decode_manifest(text: str, file: str) -> CheckpointManifest:
    """The inverse of `encode_manifest`. file: its place, which ends with the checkpoint's folder, for errors.

    :raises CheckpointError: it is damaged, or has an unknown format.
    """
    try:
        data = json.loads(text)
        found = data.pop("format")
        if found != FORMAT:
            raise CheckpointError(
                f"{file} has format {found!r}, this version reads {FORMAT}; use the version that wrote it"
            )
        files = {name: FileEntry(**entry) for name, entry in data.pop("files").items()}
        return CheckpointManifest(**data | {"group_ids": tuple(data["group_ids"])}, files=files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{file} cannot be read ({error!r}); {_way_out(file.split('/')[-2])}"
        ) from error


def _way_out(name: str) -> str:
    return f"remove the folder {name} to continue from the checkpoint before it"


def verify(folder: Path) -> CheckpointManifest:
    """The manifest of a checkpoint, every byte of which has been checked.

    :raises CheckpointError: names the file that is missing or damaged, and what to do.
    """
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry.size_bytes or _checksum(path) != entry.checksum:
            raise CheckpointError(f"{path} is missing or damaged; {_way_out(folder.name)}")
    return manifest


def step_of(name: str) -> int | None:
    """The step of a folder with a final name; None for any other folder."""
    match = _STEP.fullmatch(name)
    return None if match is None else int(match[1])


def _steps(checkpoints: Path) -> dict[int, Path]:
    """The folders with a final name, newest step first."""
    named = {step: path for path in checkpoints.glob("step-*") if (step := step_of(path.name)) is not None}
    return dict(sorted(named.items(), reverse=True))


def whole(checkpoints: Path) -> dict[int, Path]:
    """The checkpoints with a manifest, which is written last, newest step first."""
    return {
        step: folder for step, folder in _steps(checkpoints).items() if (folder / layout.MANIFEST).is_file()
    }


def newest_whole(checkpoints: Path) -> Path | None:
    """The newest checkpoint with a manifest, which is written last; None without one. Call `verify` before using it: a checkpoint
    that was damaged later is an error to be seen, not a reason to go back further in silence."""
    return next(iter(whole(checkpoints).values()), None)


def clear_aside(checkpoints: Path) -> None:
    """Removes what unfinished or replaced checkpoints left aside. To be called by the one writer, between two checkpoints."""
    for folder in checkpoints.glob("step-*.aside-*"):
        _remove(folder)


def kept(
    steps: Iterable[int],
    keep_last: int,
    keep_best: int = 0,
    heldout_rewards: Mapping[int, float] | None = None,
) -> set[int]:
    """Which whole checkpoints stay: the newest `keep_last` and, of those before them, the `keep_best` with the highest held-out reward:
    that of the evaluation at their step, or of the last one before it.

    heldout_rewards: by evaluated step.
    """
    newest_first, rewards = sorted(steps, reverse=True), heldout_rewards or {}

    def reward(step: int) -> float:
        return max(((at, value) for at, value in rewards.items() if at <= step), default=(0, -math.inf))[1]

    best = sorted(newest_first[keep_last:], key=reward, reverse=True)[:keep_best]
    return {*newest_first[:keep_last], *best}


def prune(
    checkpoints: Path, keep_last: int, keep_best: int = 0, heldout_rewards: Mapping[int, float] | None = None
) -> list[Path]:
    """Removes all checkpoints but those of `kept`. Folders that are not whole go, too. Returns what was removed."""
    staying = kept(whole(checkpoints), keep_last, keep_best, heldout_rewards)
    doomed = [folder for step, folder in _steps(checkpoints).items() if step not in staying]
    for folder in doomed:
        _remove(folder)
    return doomed


def _remove(folder: Path) -> None:
    """The manifest first, so that a folder of which only a part was removed is no checkpoint."""
    (folder / layout.MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)
