"""`scripts/carry_wheels.sh` without a network: two tiny wheels travel in pieces into an empty environment."""

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.worlds.product import ROOT

SCRIPT = ROOT / "scripts" / "carry_wheels.sh"
PIECE_BYTES = 1 << 20


def wheel(folder: Path, name: str, version: str, payload: bytes) -> Path:
    """A wheel of one module, which may hold bytes that nothing compresses."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n".encode(),
        f"{name}.bin": payload,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {path: hashlib.sha256(content).digest() for path, content in files.items()}
    sums = {path: base64.urlsafe_b64encode(digest).rstrip(b"=").decode() for path, digest in digests.items()}
    record = "".join(f"{path},sha256={sums[path]},{len(files[path])}\n" for path in files)
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, content in (files | {f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}).items():
            archive.writestr(path, content)
    return made


def pin(made: Path) -> str:
    name, version = made.name.split("-")[:2]
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    return f"{name.replace('_', '-')}=={version} \\\n    --hash=sha256:{digest}\n"


def carry(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", str(SCRIPT), *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_what_a_machine_lacks_travels_in_pieces_into_an_empty_environment(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    large = wheel(wheels, "carried_large", "1.0", os.urandom(PIECE_BYTES + PIECE_BYTES // 2))
    small = wheel(wheels, "carried_small", "2.0", b"")
    there = wheel(wheels, "there_already", "3.0", b"")
    pins = tmp_path / "pins.txt"
    pins.write_text("".join(map(pin, (large, small, there))))
    listed = tmp_path / "there.txt"
    listed.write_text("Carried.Small==1.0\nThere_Already==3.0+cu128\nother==1.0\n")
    out = tmp_path / "pieces"
    pip = f"{sys.executable} -m pip"
    packed = carry(
        "pack", listed, out, 1, PIP=pip, PINS=str(pins), PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels)
    )
    assert packed.returncode == 0, packed.stderr
    assert packed.stdout.startswith("2 wheels in 2 pieces")
    sizes = [piece.stat().st_size for piece in sorted(out.glob("wheels.tar.*"))]
    assert len(sizes) == 2
    assert max(sizes) <= PIECE_BYTES
    assert {path.name for path in out.iterdir()} == {"SHA256SUMS", "wheels.tar.0000", "wheels.tar.0001"}

    empty = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(empty)], check=True, timeout=60)
    python = empty / "bin" / "python"
    installed = carry("install", out, PIP=f"{pip} --python {python}")
    assert installed.returncode == 0, installed.stderr
    versions = "import carried_large, carried_small; import sys; sys.stdout.write(carried_large.version"
    told = subprocess.run(
        [str(python), "-c", versions + " + ' ' + carried_small.version)"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.stdout == "1.0 2.0", told.stderr
    absent = subprocess.run([str(python), "-c", "import there_already"], capture_output=True, timeout=60)
    assert absent.returncode == 1

    piece = out / "wheels.tar.0001"
    piece.write_bytes(piece.read_bytes()[:-1] + b"?")
    damaged = carry("install", out, PIP="false")
    assert (damaged.returncode, damaged.stdout) == (1, "")
    assert "nothing was installed" in damaged.stderr


def test_what_is_wrong_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    listed = tmp_path / "there.txt"
    listed.write_text("")
    cases = {
        (): "pack LIST OUT",
        ("pack", listed): "pack LIST OUT",
        ("pack", tmp_path / "none", tmp_path / "out"): "cannot be read",
        ("pack", listed, tmp_path / "out", "0"): "no number of mebibytes",
        ("pack", listed, tmp_path): "exists already",
        ("install", tmp_path): "no SHA256SUMS",
    }
    for arguments, said in cases.items():
        ended = carry(*arguments, PIP="false")
        assert (ended.returncode, ended.stdout) == (2, ""), arguments
        assert said in ended.stderr


def test_a_machine_that_lacks_nothing_gets_nothing(tmp_path: Path) -> None:
    listed = tmp_path / "there.txt"
    listed.write_text("one==1.0\n")
    pins = tmp_path / "pins.txt"
    pins.write_text("one==1.0 \\\n    --hash=sha256:00\n")
    ended = carry("pack", listed, tmp_path / "out", PIP="false", PINS=str(pins))
    assert ended.returncode == 0, ended.stderr
    assert "lacks nothing" in ended.stdout
