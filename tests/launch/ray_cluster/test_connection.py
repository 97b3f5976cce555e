"""Ray's token on this machine is its user's alone."""

from pathlib import Path

import pytest

from dynalign.launch.ray_cluster.connection import make_private_token


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_token_can_be_read_by_its_user_alone(tmp_path: Path) -> None:
    make_private_token()
    file = tmp_path / ".ray" / "auth_token"
    assert mode(file) == 0o600
    assert len(file.read_text()) == 64


def test_a_token_that_is_there_stays_and_is_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("mine")
    file.chmod(0o644)
    make_private_token()
    assert (mode(file), file.read_text()) == (0o600, "mine")


@pytest.mark.parametrize(
    ("name", "value"),
    [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN", "0" * 64), ("RAY_AUTH_TOKEN_PATH", "elsewhere")],
)
def test_no_token_is_made_where_none_of_this_user_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    make_private_token()
    assert not (tmp_path / ".ray").exists()


def test_a_home_that_takes_no_file_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    make_private_token()
