"""What leaves this checkout: the wheel that is installed, and the folder that `ray job submit` uploads."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.worlds.product import ROOT, packages, project_files, rooms


def copy(paths: Iterable[str], folder: Path) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    (folder / "dynalign").mkdir(exist_ok=True)
    for link in (ROOT / "dynalign").iterdir():
        if link.is_symlink():
            (folder / "dynalign" / link.name).symlink_to(link.readlink())
    return folder


def of_the_product(path: str) -> bool:
    return path.split("/")[0] in rooms()


def run(*arguments: str, cwd: Path, **environment: str) -> str:
    """Standard output of a Python child."""
    settings = os.environ | environment
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=settings, capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout and nothing that is left there gets in."""
    own = [
        path
        for path in project_files()
        if of_the_product(path) or path in ("pyproject.toml", "README.md", "LICENSE", "dynalign/__init__.py")
    ]
    source = copy(own, tmp_path_factory.mktemp("source"))
    run("-c", "from setuptools.build_meta import build_wheel; build_wheel('dist')", cwd=source)
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = {f"dynalign/{path}" for path in project_files() if of_the_product(path)}
    assert names == ours | {"dynalign/__init__.py"}, (
        "everything lies below one name in everybody's site-packages"
    )


def test_every_folder_with_code_is_a_listed_package_and_tests_are_not(wheel: Path) -> None:
    with_code = {os.path.dirname(path) for path in project_files() if path.endswith(".py")} - {""}
    ours = {folder for folder in with_code if folder.split("/")[0] not in ("tests", "dynalign")}
    assert {"dynalign", *(f"dynalign.{folder.replace('/', '.')}" for folder in ours)} == set(packages())


def test_the_installed_packages_import_in_a_folder_that_has_a_configs_of_its_own(
    site: Path, tmp_path: Path
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text("name: mine\n")
    script = f"import importlib; [print(importlib.import_module(name).__file__) for name in {packages()}]"
    found = run("-c", script, cwd=tmp_path, PYTHONPATH=str(site)).split()
    assert found == [str(site / package.replace(".", "/") / "__init__.py") for package in packages()]


def test_the_installed_command_starts_where_a_package_of_the_user_is_called_configs_too(
    site: Path, tmp_path: Path
) -> None:
    (tmp_path / "work" / "configs").mkdir(parents=True)
    (tmp_path / "work" / "configs" / "__init__.py").write_text("raise ImportError('the configs of the user')")
    module, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][
        "dynalign"
    ].split(":")
    command = tmp_path / "bin" / "dynalign"
    command.parent.mkdir()
    command.write_text(f"from {module} import {function}\n{function}()\n")
    assert "train" in run(str(command), "--help", cwd=tmp_path / "work", PYTHONPATH=str(site))


def test_a_ray_job_uploads_the_product_and_leaves_environments_runs_caches_and_tests_at_home(
    tmp_path: Path,
) -> None:
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    checkout = copy(project_files(), tmp_path / "checkout")
    for stray in (
        ".venv/lib/torch.py",
        "runs/quickstart/spool/1.arrow",
        "configs/__pycache__/load.pyc",
        ".mypy_cache/x",
        "build/x.py",
    ):
        (checkout / stray).parent.mkdir(parents=True)
        (checkout / stray).write_text("stray")
    package = tmp_path / "package.zip"
    create_package(
        str(checkout), package, include_gitignore=True, excludes=get_runtime_env_default_excludes()
    )
    with zipfile.ZipFile(package) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    left_at_home = (".ci/", "docs/", "k8s/", "requirements/", "scripts/", "tests/", "Makefile")
    at_home = {path for path in project_files() if not path.startswith(left_at_home)}
    assert names == {f"dynalign/{path}" if of_the_product(path) else path for path in at_home}
    assert package.stat().st_size < 5_000_000, (
        "an upload to every job should stay small: add what is large to .rayignore"
    )
