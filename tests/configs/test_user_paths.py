"""Paths as a user writes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.configs.user_paths import cache_folder, path_rule, user_path
from tests.worlds.product import ROOT


def test_a_path_is_made_absolute_from_home_or_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert user_path("runs", "~/r") == tmp_path / "r"
    assert user_path("runs", "r/s") == tmp_path / "r" / "s"
    assert user_path("runs", "/r") == Path("/r")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a\0b", "a character that no path has"),
        ("a\nb", "a character that no path has"),
        ("\ud800", "a character that no path has"),
        ("s3://bucket/runs", r"is an address \(s3://\)"),
        ("a/" + "é" * 128, "a name of more than 255 bytes"),
        ("a/" * 2048, "more than 4,095 bytes"),
        ("~nobody-of-this-name/x", "no user 'nobody-of-this-name'"),
    ],
)
def test_what_is_no_path_is_refused_with_place_value_rule_and_remedy(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        user_path("runs", text)
    (mistake,) = caught.value.mistakes
    assert (mistake.place, mistake.value) == ("runs", text)
    assert mistake.remedy


def test_names_in_any_language_are_paths() -> None:
    assert [path_rule(text) for text in ("Läufe/η = 1", "运行", "a" * 255, "./~x")] == [None] * 4


def test_the_cache_is_in_the_folder_that_is_set_or_in_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_folder() == Path("/c")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache"


NO_ENTRY = """
import os, pwd, sys
def absent(of): raise KeyError(of)
pwd.getpwuid = absent
os.environ.pop("HOME", None), os.environ.pop("XDG_CACHE_HOME", None)
from dynalign.launch.cli import dynalign, run_command
for arguments in (
    ["check", "quickstart"],
    ["check", "quickstart", "model=acme/x"],
    ["check", "quickstart", "runs=~/r"],
    ["check", "quickstart", "judge.values=~/v"],
    ["check", "quickstart", "prompts.source=~/p.jsonl"],
    ["status", "x", "--runs", "~/r"],
    ["model", "fetch", "smollm2-135m-instruct"],
):
    print(run_command(dynalign, arguments), file=sys.stderr)
"""


def test_a_user_without_home_and_without_an_entry_in_passwd_reads_which_variable_to_set(
    tmp_path: Path,
) -> None:
    """As of OpenShift's random user ids, and of `docker run --user 12345`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", NO_ENTRY],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = ended.stderr.splitlines()
    assert lines[1::2] == ["2"] * 7
    assert all("no home folder" in line and "set HOME" in line for line in lines[::2]), lines
    assert list(tmp_path.iterdir()) == []
