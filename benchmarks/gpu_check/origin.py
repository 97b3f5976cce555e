"""Which machine and which sources a result belongs to."""

import hashlib
from pathlib import Path

import dynalign
from dynalign.benchmarks.gpu_check.outcomes import Origin
from dynalign.benchmarks.host import this_host
from dynalign.benchmarks.workload import Device

_DIGITS = 12


def this_origin(device: Device) -> Origin:
    """Of this process's machine."""
    host = this_host()
    card = ", ".join(host.gpus) if device == "gpu" else host.cpu
    (root,) = dynalign.__path__
    return Origin(device, card, host.commit or "", sources_hash(Path(root)))


def sources_hash(package: Path) -> str:
    """A hash of the paths and contents of all Python and YAML files below a package.

    A folder of the package may be a link to the room of a checkout, which is followed."""
    digest = hashlib.sha256()
    rooms = sorted(path for path in package.iterdir() if path.is_dir())
    for room in rooms:
        found = [path for path in room.resolve().rglob("*") if path.suffix in (".py", ".yaml")]
        for path in sorted(found):
            digest.update(f"{room.name}/{path.relative_to(room.resolve())}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:_DIGITS]
