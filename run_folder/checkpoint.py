"""Checkpoints on disk: weights, optimizer, schedule and ledger of one moment, complete or absent.

    checkpoints/step-000010.aside-3/   being written by lineage 3; never read
    checkpoints/step-000010/           complete: deepspeed/, hf/, ledger.msgpack, manifest.json (written last)

The manifest lists every file with size and checksum. A folder gets its final name after all of it is on the
disk, so a crash at any moment leaves the checkpoint before it in place.
"""

import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from dynalign.configs.earlier_versions import present_function
from dynalign.configs.errors import CheckpointError, Mistake
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.algorithm import AlgorithmSettings
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.run_folder import durable, layout
from dynalign.run_folder.content import content_mistakes
from dynalign.run_folder.layout import aside_folder, aside_folders, replaced_folder, step_folder

FORMAT = 1
CONTENT = "content"
"""The key of the content's hashes among the settings of a manifest."""
_READ_BYTES = 1 << 22


@dataclass(frozen=True)
class FileEntry:
    """One file of a checkpoint.

    Example: `FileEntry(538_090_408, "9f2ab3c4d5e6f708")`.
    """

    size_bytes: int
    """Its size."""
    checksum: str
    """xxh64 of its bytes, in hexadecimal."""


@dataclass(frozen=True)
class CheckpointManifest:
    """The content of `manifest.json`.

    Example: `CheckpointManifest("quickstart", 1, 4, (12, 13, 14, 15), {"seed": 0, …}, {"hf/config.json":
    FileEntry(…), …})`.
    """

    run: str
    """Name of the run."""
    lineage: int
    """The lineage that wrote it."""
    step: int
    """Trained steps."""
    group_ids: tuple[int, ...]
    """The groups of the last trained step."""
    settings: dict[str, Any]
    """`fixed_settings` of the run that wrote it."""
    files: dict[str, FileEntry]
    """Path in the folder → file, for every file but the manifest."""


def fixed_settings(
    settings: RunSettings, prompts_hash: str, content: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The settings that may not change when a run is resumed, by dotted path.

    Another value would not fit the saved state, or would make the history before and after incomparable.
    content: the hashes of `content.py`, under `content`; None leaves them out.
    """
    learner = settings.learner
    rollout = settings.rollout
    fixed = {
        "model": settings.model,
        "seed": settings.seed,
        "prompts": prompts_hash,
        "rollout.group_size": rollout.group_size,
        "rollout.prompts_per_step": rollout.prompts_per_step,
        "judge": _judge(settings.judge),
        "algorithm.advantage_scale": settings.algorithm.advantage_scale,
        "algorithm.loss_aggregation": settings.algorithm.loss_aggregation,
        "algorithm.system_prompt": settings.algorithm.system_prompt,
        "algorithm.context_taper": settings.algorithm.context_taper,
        "learner.ranks": learner.ranks,
        "learner.zero_stage": learner.zero_stage,
        "learner.precision": learner.precision,
        "learner.lora": None if learner.lora is None else learner.lora.model_dump(mode="json"),
    }
    return fixed if content is None else fixed | {CONTENT: dict(content)}


def contradictions(checkpoint: CheckpointManifest, settings: RunSettings, prompts_hash: str) -> list[Mistake]:
    """Why a run with `settings` cannot continue this checkpoint: one mistake per setting, none if it can.

    Model and value texts are compared by their content, in `content_contradictions`. Only for a checkpoint of
    an earlier version, which has no hashes, are their paths compared here.
    """
    wanted = fixed_settings(settings, prompts_hash)
    made_with = _present(checkpoint.settings)
    has_hashes = made_with.pop(CONTENT, None) is not None
    if has_hashes or _same_place(made_with["model"], wanted["model"]):
        made_with["model"] = wanted["model"]
    if has_hashes or _same_place(made_with["judge"]["values"], wanted["judge"]["values"]):
        made_with["judge"] = made_with["judge"] | {"values": wanted["judge"]["values"]}
    mistakes = [
        Mistake(
            place,
            wanted.get(place),
            f"the checkpoint was made with {value!r}",
            "set it back, or start a new run",
        )
        for place, value in made_with.items()
        if wanted.get(place) != value
    ]
    if settings.steps < checkpoint.step:
        rule = f"the run has already trained {checkpoint.step} steps"
        mistakes.append(
            Mistake("steps", settings.steps, rule, f"set it to {checkpoint.step} or more, or start a new run")
        )
    return mistakes


def content_contradictions(
    checkpoint: CheckpointManifest, settings: RunSettings, content: Mapping[str, str]
) -> list[Mistake]:
    """The same for what the run's files hold. content: the hashes of `content.py`, as of now."""
    shown = {"model": settings.model, "judge.values": settings.judge.values}
    if settings.judge.pool is not None:
        shown["judge.pool.model"] = settings.judge.pool.model
    return content_mistakes(checkpoint.settings.get(CONTENT, {}), content, shown)


def _same_place(one: str | None, other: str | None) -> bool:
    """Whether two spellings name the same file or folder, by a symlink, a slash at the end, or another
    current folder."""
    if one is None or other is None:
        return one == other
    return one == other or os.path.realpath(os.path.expanduser(one)) == os.path.realpath(
        os.path.expanduser(other)
    )


def _present(settings: dict[str, Any]) -> dict[str, Any]:
    """`fixed_settings` of a manifest as this version would have written them.

    An earlier version wrote a reward function under its former name, and had fewer settings, which count as
    their defaults.
    """
    algorithm = AlgorithmSettings()
    later = {
        "algorithm.system_prompt": algorithm.system_prompt,
        "algorithm.context_taper": algorithm.context_taper,
    }
    judge = _judge(JudgeSettings()) | settings.get("judge", {})
    if judge["function"] is not None:
        judge["function"] = present_function(judge["function"])
    return later | settings | {"judge": judge}


def _judge(settings: JudgeSettings) -> dict[str, Any]:
    """The settings of the judge that may not change: all but what is measured beside the scores, for how long
    a failed call is tried, how many engines with fixed weights there are, of what size, and how an endpoint
    is asked: its model stays."""
    free = {"noise_fraction", "probes", "probe_factorized", "probe_fraction", "function_s", "failed_again"}
    fixed = settings.model_dump(mode="json", exclude=free | {"pool", "endpoints"})
    pool = settings.pool
    fixed |= {"pool": None if pool is None else {"engine": pool.engine, "dtype": pool.dtype}}
    models = {name: endpoint.model for name, endpoint in settings.endpoints.items()}
    return fixed | {"endpoints": models} if models else fixed


def _checksum(file: Path) -> str:
    digest = xxhash.xxh64()
    with file.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def seal(
    checkpoints: Path,
    run: str,
    lineage: int,
    step: int,
    group_ids: tuple[int, ...],
    settings: dict[str, Any],
    fence: durable.Fence = nullcontext,
    writer: str = "",
) -> Path:
    """Makes the folder aside, in which everything has been written, the checkpoint of `step`. Returns it.

    It replaces a checkpoint of the same step that an earlier lineage has written. fence: the context of that,
    which refuses it to a driver that was taken over; hashing large files may take minutes before. writer: as
    in `aside_folder`.
    """
    aside = aside_folder(checkpoints, step, lineage, writer)
    files = {
        path.relative_to(aside).as_posix(): FileEntry(path.stat().st_size, _checksum(path))
        for path in sorted(aside.rglob("*"))
        if path.is_file() and path.name != layout.MANIFEST
    }
    manifest = CheckpointManifest(run, lineage, step, group_ids, settings, files)
    durable.write(aside / layout.MANIFEST, encode_manifest(manifest))
    folder = step_folder(checkpoints, step)
    durable.publish(aside, folder, replaced_folder(checkpoints, step), fence)
    return folder


def read_manifest(folder: Path) -> CheckpointManifest:
    """The manifest of a checkpoint. Raises CheckpointError if it cannot be read, or has an unknown format."""
    file = folder / layout.MANIFEST
    try:
        return decode_manifest(file.read_text(), str(file))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error!r}); {_way_out(folder.name)}") from error


def encode_manifest(manifest: CheckpointManifest) -> str:
    """The content of `manifest.json`."""
    return json.dumps({"format": FORMAT} | asdict(manifest), indent=1)


def decode_manifest(text: str, file: str) -> CheckpointManifest:
    """The inverse of `encode_manifest`. file: its path, the checkpoint's folder included, for errors.

    Raises CheckpointError if it is damaged, has an unknown format, or names a file outside the folder.
    """
    try:
        data = json.loads(text)
        found = data.pop("format")
        if found != FORMAT:
            raise CheckpointError(
                f"{file} has format {found!r}, this version reads {FORMAT}; use the version that wrote it"
            )
        files = {name: FileEntry(**entry) for name, entry in data.pop("files").items()}
        manifest = CheckpointManifest(**data | {"group_ids": tuple(data["group_ids"])}, files=files)
        _check_places(manifest)
        return manifest
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{file} cannot be read ({error!r}); {_way_out(file.split('/')[-2])}"
        ) from error


def _check_places(manifest: CheckpointManifest) -> None:
    """Raises ValueError if a path that is made of the manifest could lie elsewhere than in its checkpoint.

    Whoever can write to a mirror could otherwise write any file of those who restore from it.
    """
    numbers = (manifest.lineage, manifest.step)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"lineage and step must be numbers from 0; they are {numbers}")
    for name in manifest.files:
        if not layout.is_plain_name(name) or name == layout.MANIFEST:
            raise ValueError(f"{name!r} is no name of a file inside the checkpoint")


def _way_out(name: str) -> str:
    return f"remove the folder {name} to continue from the checkpoint before it"


def verify(folder: Path) -> CheckpointManifest:
    """The manifest of a checkpoint, after a check of every byte.

    Raises CheckpointError, which names the file that is missing or damaged, and says what to do.
    """
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry.size_bytes or _checksum(path) != entry.checksum:
            raise CheckpointError(f"{path} is missing or damaged; {_way_out(folder.name)}")
    return manifest


def whole(checkpoints: Path) -> dict[int, Path]:
    """The checkpoints with a manifest, which is written last, newest step first."""
    named = layout.checkpoint_folders(checkpoints)
    return {step: folder for step, folder in named.items() if (folder / layout.MANIFEST).is_file()}


def newest_whole(checkpoints: Path) -> Path | None:
    """The newest checkpoint with a manifest; None without one.

    Call `verify` before you use it. A checkpoint that was damaged later is an error, which the user must
    see: the run does not silently go back to an older one.
    """
    return next(iter(whole(checkpoints).values()), None)


def clear_aside(checkpoints: Path) -> None:
    """Removes incomplete and replaced checkpoints. Only the one writer calls it, between two checkpoints."""
    for folder in aside_folders(checkpoints):
        _remove(folder)


def kept(
    steps: Iterable[int],
    keep_last: int,
    keep_best: int = 0,
    heldout_rewards: Mapping[int, float] | None = None,
) -> set[int]:
    """Which complete checkpoints stay: the newest `keep_last`, and the `keep_best` best ones of those before.

    The best ones are those with the highest held-out reward, measured at their step, or at the last
    evaluation before it. heldout_rewards: evaluated step → mean reward, in points.
    """
    newest_first = sorted(steps, reverse=True)
    rewards = heldout_rewards or {}

    def reward(step: int) -> float:
        return max(((at, value) for at, value in rewards.items() if at <= step), default=(0, -math.inf))[1]

    best = sorted(newest_first[keep_last:], key=reward, reverse=True)[:keep_best]
    return {*newest_first[:keep_last], *best}


def prune(
    checkpoints: Path, keep_last: int, keep_best: int = 0, heldout_rewards: Mapping[int, float] | None = None
) -> list[Path]:
    """Removes all checkpoints but those of `kept`, and those without a manifest. Returns what was removed."""
    staying = kept(whole(checkpoints), keep_last, keep_best, heldout_rewards)
    named = layout.checkpoint_folders(checkpoints)
    doomed = [folder for step, folder in named.items() if step not in staying]
    for folder in doomed:
        _remove(folder)
    return doomed


def _remove(folder: Path) -> None:
    """Removes the manifest first: without it, what is left after a crash is no checkpoint."""
    (folder / layout.MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)
