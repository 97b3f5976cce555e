"""`checkpoint.mirror` before and after the loop.

Before: can it be written to, is it this run's, does it hold a newer checkpoint than the run folder? After:
the last copies. In between, `run_folder/mirror.py` keeps it up to date.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dynalign.configs.errors import CheckpointError, MirrorError, Mistake, RunFailed, UserError
from dynalign.configs.schema import RunSettings
from dynalign.launch.resume.open_run import RunFolder
from dynalign.run_folder import layout, owner
from dynalign.run_folder.checkpoint import CheckpointManifest, read_manifest, whole
from dynalign.run_folder.mirror import Mirror
from dynalign.run_folder.mirror_storage import MirrorStorage

_ANSWER_S = 60.0
"""Longest wait for the storage; a client tries an address that does not answer for about half a minute."""


@dataclass(frozen=True)
class Mirrored:
    """What the mirror of a run holds."""

    storage: MirrorStorage
    """The mirror's address, opened."""
    there: dict[int, CheckpointManifest]
    """The complete checkpoints in the mirror, by step."""
    lost: CheckpointManifest | None
    """The newest of them if it is newer than any in the run folder, else None."""


def look_at_mirror(settings: RunSettings, folder: RunFolder) -> Mirrored | None:
    """Tests the mirror by writing a file and removing it, and reads what it holds.

    None for a run without a mirror.

    Raises UserError when it cannot be read or written, or holds checkpoints that are not this run's.
    """
    uri = settings.checkpoint.mirror
    if uri is None:
        return None
    storage, there = _answer(uri, settings.name)
    newest = max(there.values(), key=_age, default=None)
    known = folder.newest_lineage()
    if newest is None:
        return Mirrored(storage, there, None)
    held = f"{storage.address} holds step {newest.step} of lineage {newest.lineage}"
    if settings.resume == "never":
        remedy = "set another name or mirror, or resume=auto"
        raise UserError([Mistake("checkpoint.mirror", uri, f"resume=never, and {held}", remedy)])
    if 0 < known < newest.lineage:
        whose = "it is another run's, or this run went on elsewhere"
        rule = f"{held}, and the run folder knows lineage {known}: {whose}"
        remedy = "set another name or mirror, or move the run folder away to continue from the mirror"
        raise UserError([Mistake("checkpoint.mirror", uri, rule, remedy)])
    local = folder.newest_checkpoint()
    lost = local is None or _age(newest) > _age(read_manifest(local))
    return Mirrored(storage, there, newest if lost else None)


def restore(mirrored: Mirrored, folder: Path, interrupted: Callable[[], bool]) -> None:
    """Copies the lost checkpoint back into the run folder, and verifies every byte.

    Raises RunFailed when it is interrupted, CheckpointError for damage, MirrorError when the storage refuses,
    OSError when the disk does.
    """
    if mirrored.lost is None:
        return

    def go_on() -> None:
        if interrupted():
            doing = f"copied a checkpoint from {mirrored.storage.address}"
            raise RunFailed(f"interrupted while it {doing}; nothing was started")

    size_gb = sum(entry.size_bytes for entry in mirrored.lost.files.values()) / 1e9
    source = f"step {mirrored.lost.step} in {mirrored.storage.address}"
    print(f"continuing from the mirror: {source} ({size_gb:.1f} GB)")
    mirrored.storage.restore(mirrored.lost.step, folder, go_on)


@contextmanager
def kept(
    mirrored: Mirrored | None, settings: RunSettings, folder: Path, mine: owner.Owner
) -> Iterator[Mirror | None]:
    """Keeps the mirror up to date as long as the context lasts; yields None for a run without one.

    Enter it after `restore`.
    """
    if mirrored is None:
        yield None
    else:
        with Mirror(mirrored.storage, folder, settings.checkpoint, mine) as mirror:
            yield mirror


def finish(mirror: Mirror, deadline_s: float, given_up: Callable[[], bool]) -> bool:
    """Waits for the last copies, and prints the result. Returns False when the mirror lacks one.

    deadline_s: longest wait. given_up: asked now and then; True ends the wait.
    """
    problem = mirror.finish(deadline_s, given_up)
    step = mirror.report().step
    if problem:
        print(f"not mirrored: {problem}; the same command again copies it")
    elif step is not None:
        print(f"mirrored: step {step} in {mirror.address}")
    return not problem


def catch_up(settings: RunSettings, folder: RunFolder) -> bool:
    """Copies what a finished run's mirror lacks. Returns False when it cannot.

    Raises UserError like `look_at_mirror`.
    """
    mirrored = look_at_mirror(settings.model_copy(update={"resume": "auto"}), folder)
    here = {step: read_manifest(path) for step, path in whole(folder.path / layout.CHECKPOINTS).items()}
    if mirrored is None or mirrored.lost is not None or here.items() <= mirrored.there.items():
        return True
    mine = owner.acquire(folder.path, time.time(), newest_lineage=folder.newest_lineage())
    try:
        with Mirror(mirrored.storage, folder.path, settings.checkpoint, mine) as mirror:
            return finish(mirror, settings.deadlines.checkpoint_s, lambda: False)
    finally:
        mine.release(time.time())


def _age(manifest: CheckpointManifest) -> tuple[int, int]:
    return manifest.lineage, manifest.step


def _answer(uri: str, run: str) -> tuple[MirrorStorage, dict[int, CheckpointManifest]]:
    """The storage, and the complete checkpoints in it.

    Raises UserError when there is no answer or a refusal.
    """
    answers: queue.Queue[tuple[MirrorStorage, dict[int, CheckpointManifest]] | str] = queue.Queue()

    def ask() -> None:
        try:
            storage = MirrorStorage(uri, run)
            storage.probe()
            answers.put((storage, storage.checkpoints()))
        except MirrorError as refused:
            answers.put(refused.cause)
        except CheckpointError as unreadable:
            answers.put(str(unreadable))

    # A daemon: a client that hangs must not keep the command from ending.
    threading.Thread(target=ask, name="mirror probe", daemon=True).start()
    try:
        answer = answers.get(timeout=_ANSWER_S)
    except queue.Empty:
        answer = f"gives no answer within {_ANSWER_S:g} s"
    if isinstance(answer, str):
        allowed = "let the driver's machine list, read, write and delete there"
        remedy = f"{allowed}, with credentials in its environment"
        raise UserError([Mistake("checkpoint.mirror", uri, answer, remedy)])
    return answer
