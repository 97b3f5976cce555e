"""The complete checkpoints of a run in object storage: in a folder of its name under `checkpoint.mirror`.

    <mirror>/<run>/step-000010/{deepspeed/…, hf/…, ledger.msgpack, manifest.json}   the manifest last
    <mirror>/<run>/{config.yaml, capability.jsonl, heldout.jsonl, metrics.jsonl}    as of the newest step

As in the run folder, a checkpoint exists if its manifest does. pyarrow talks to the storage, with the
credentials that its clients find: environment, profile, or the identity of machine or pod.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import xxhash
from pyarrow import fs

from dynalign.configs.errors import CheckpointError, MirrorError, one_line
from dynalign.run_folder import durable, layout
from dynalign.run_folder.checkpoint import (
    CheckpointManifest,
    FileEntry,
    decode_manifest,
    read_manifest,
    verify,
)
from dynalign.run_folder.layout import aside_folder, replaced_folder, step_folder, step_of

RUN_FILES = (layout.CONFIG, layout.CAPABILITY, layout.HELDOUT, layout.METRICS)
"""What a run needs beside a checkpoint to continue elsewhere: its date, the initial policy's answers to the
capability probe, which checkpoints were best, the curves."""
_BLOCK_BYTES = 8 << 20
_RETRY = "retry_limit_seconds"  # by default Google's client retries for a quarter of an hour


class MirrorStorage:
    """The mirror of the run `run`. Every method raises MirrorError, on one line, for what the storage
    refuses.

    address: that of the run's folder in the storage, for messages.
    """

    def __init__(self, uri: str, run: str) -> None:
        """Connects to the storage only for S3 without `region`, to ask for the region of the bucket."""
        self.address = f"{uri.partition('?')[0].rstrip('/')}/{run}"
        if uri.startswith("gs:") and _RETRY not in uri:
            uri += f"{'&' if urlsplit(uri).query else '?'}{_RETRY}=30"
        with self._refusals():
            self._files, path = fs.FileSystem.from_uri(uri)
        self._root = f"{path.rstrip('/')}/{run}"
        self._on_disk = self._files.type_name == "local"
        self._sent: dict[str, FileEntry] = {}

    def probe(self) -> None:
        """Writes a file and removes it."""
        path = f"{self._root}/.probe-{os.getpid()}"
        with self._refusals():
            self._make_folder(path)
            with self._files.open_output_stream(path) as sink:
                sink.write(b"dynalign")
            self._files.delete_file(path)

    def steps(self) -> list[int]:
        """The steps that have a folder, with or without a manifest."""
        with self._refusals():
            found = self._files.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
        steps = [step_of(info.base_name) for info in found if info.type == fs.FileType.Directory]
        return sorted(step for step in steps if step is not None)

    def checkpoints(self) -> dict[int, CheckpointManifest]:
        """Step → manifest of the complete checkpoints that are there.

        Raises CheckpointError for a manifest that is damaged or has an unknown format.
        """
        found = {}
        for step in self.steps():
            file = f"{self._folder(step)}/{layout.MANIFEST}"
            text = self._read(file)
            if text is not None:
                found[step] = decode_manifest(
                    text.decode(errors="replace"), f"{self.address}/{file.removeprefix(self._root)[1:]}"
                )
        return found

    def send(self, checkpoint: Path, go_on: Callable[[], None]) -> None:
        """Copies a complete checkpoint of the run folder. It replaces one of the same step from an older
        lineage.

        Called again after a failure, it does not send again what has arrived. go_on: called before every
        block; what it raises ends the copy. Raises CheckpointError for a damaged file, FileNotFoundError
        for one that is gone.
        """
        manifest = read_manifest(checkpoint)
        target = self._folder(manifest.step)
        wanted = {f"{target}/{name}": entry for name, entry in manifest.files.items()}
        if not any(wanted.get(path) == entry for path, entry in self._sent.items()):
            self.remove(manifest.step)
        self._sent = {path: entry for path, entry in self._sent.items() if wanted.get(path) == entry}
        for name, entry in manifest.files.items():
            path = f"{target}/{name}"
            if path not in self._sent:
                if self._send_file(checkpoint / name, path, go_on) != entry:
                    raise CheckpointError(
                        f"{checkpoint / name} is damaged: it is not copied to {self.address}"
                    )
                self._sent[path] = entry
        for name in RUN_FILES:
            if (checkpoint.parent.parent / name).exists():
                self._send_file(checkpoint.parent.parent / name, f"{self._root}/{name}", go_on)
        go_on()
        self._send_file(checkpoint / layout.MANIFEST, f"{target}/{layout.MANIFEST}", go_on)
        self._sent = {}

    def remove(self, step: int) -> None:
        """Removes a checkpoint, its manifest first: without it, what is left after a crash is no
        checkpoint."""
        folder = self._folder(step)
        with self._refusals():
            for remove, path in (
                (self._files.delete_file, f"{folder}/{layout.MANIFEST}"),
                (self._files.delete_dir, folder),
            ):
                if self._files.get_file_info(path).type != fs.FileType.NotFound:
                    remove(path)

    def restore(self, step: int, run_folder: Path, go_on: Callable[[], None]) -> Path:
        """Copies a checkpoint back into the run folder, and checks every byte of it. Returns its folder.

        Of RUN_FILES it copies those that the run folder lacks. Raises CheckpointError for a file that does
        not match the manifest, OSError from the disk.
        """
        manifest = self.checkpoints()[step]
        checkpoints = run_folder / layout.CHECKPOINTS
        aside = aside_folder(checkpoints, step, manifest.lineage)
        shutil.rmtree(aside, ignore_errors=True)
        for name in (*manifest.files, layout.MANIFEST):
            self._fetch_file(f"{self._folder(step)}/{name}", aside / name, go_on)
        verify(aside)
        for name in RUN_FILES:
            go_on()
            content = None if (run_folder / name).exists() else self._read(f"{self._root}/{name}")
            if content is not None:
                durable.write(run_folder / name, content)
        folder = step_folder(checkpoints, step)
        durable.publish(aside, folder, replaced_folder(checkpoints, step))
        return folder

    def _folder(self, step: int) -> str:
        return f"{self._root}/{step_folder(Path(), step).name}"

    def _make_folder(self, path: str) -> None:
        """Makes the folder of a file, where the storage has folders."""
        if self._on_disk:
            self._files.create_dir(path.rpartition("/")[0], recursive=True)

    def _read(self, path: str) -> bytes | None:
        """The content of a file; None if there is no such file."""
        with self._refusals():
            try:
                with self._files.open_input_stream(path) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def _send_file(self, source: Path, path: str, go_on: Callable[[], None]) -> FileEntry:
        """Copies a file into the storage. Returns size and checksum of what was sent."""
        digest = xxhash.xxh64()
        size_bytes = 0
        with source.open("rb") as stream, self._refusals():
            self._make_folder(path)
            with self._files.open_output_stream(path) as sink:
                while block := stream.read(_BLOCK_BYTES):
                    go_on()
                    sink.write(block)
                    digest.update(block)
                    size_bytes += len(block)
            if self._on_disk:
                durable.sync(Path(path))
        return FileEntry(size_bytes, digest.hexdigest())

    def _fetch_file(self, path: str, target: Path, go_on: Callable[[], None]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._refusals():
            stream = self._files.open_input_stream(path)
        with stream, target.open("wb") as sink:
            while block := stream.read(_BLOCK_BYTES):
                go_on()
                sink.write(block)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise MirrorError(self.address, one_line(error)) from error
