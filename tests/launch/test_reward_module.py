"""A reward module that raises, ends, blocks, prints or starts something while it is imported: one line."""

import re
import sys
import time
from itertools import count
from pathlib import Path

import psutil
import pytest

from dynalign.configs.errors import Mistake
from dynalign.launch.reward_module import reward_mistakes
from tests.launch.test_cli import python
from tests.launch.test_preflight import paper_model

NUMBERS = count()
GOOD = "def f(prompt, completion):\n    return 1.0\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])


def tried(text: str, function: str = "f", deadline_s: float = 300.0) -> list[Mistake]:
    """What is said of a module with this text. Each has a name of its own."""
    module = f"own_reward_{next(NUMBERS)}"
    Path(f"{module}.py").write_text(text)
    return reward_mistakes(f"{module}:{function}", deadline_s)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(p, c)\n    return 1\n", r"its import raised SyntaxError: .*\(own_reward_\d+.py, line 1\)"),
        ("x = 1\ny = undefined\n", r"raised NameError: name 'undefined' .*\(own_reward_\d+.py:2\)"),
        ("open('/nonexistent/answers.json')\n", r"raised FileNotFoundError: .*answers.json.*:1\)"),
        (
            "import os\nos.environ['MY_REWARD_KEY']\n",
            r"raised KeyError: 'MY_REWARD_KEY' \(own_reward_\d+.py:2\)",
        ),
        ("import sys\nsys.exit('no key')\n", r"raised SystemExit: no key \(own_reward_\d+.py:2\)"),
        ("import sys\nsys.exit()\n", r"raised SystemExit \(own_reward_\d+.py:2\)"),
        ("class Odd(BaseException): pass\nraise Odd('a\\nb')\n", r"raised Odd: a b \(own_reward_\d+.py:2\)"),
        ("raise KeyboardInterrupt\n", r"raised KeyboardInterrupt"),
        ("input('key? ')\n", r"raised EOFError"),
        ("import nowhere_at_all\n", r"raised ModuleNotFoundError: No module named 'nowhere_at_all'.*:1\)"),
        ("import os\nos._exit(3)\n", r"its import ended the process with exit code 3"),
        ("import os\nos.kill(os.getpid(), 11)\n", r"its import ended the process by signal SIGSEGV"),
        ("raise ValueError('x' * 100000)\n", r"raised ValueError: x{100,200}"),
        ("f = 3\n", r"is not callable"),
        ("def g(p, c): return 1.0\n", r"own_reward_\d+ has no f"),
        ("def f(completion): return 1.0\n", r"cannot be called with a prompt and a completion"),
        ("\0", r"raised (SyntaxError|ValueError): "),
    ],
)
def test_a_module_that_cannot_be_used_is_one_line(text: str, said: str) -> None:
    (mistake,) = tried(text)
    assert mistake.place == "judge.function"
    assert str(mistake.value).endswith(":f")
    assert re.search(said, mistake.rule), mistake.rule
    assert mistake.remedy
    assert "\n" not in str(mistake)
    assert len(str(mistake)) < 500


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "print('hello')\nimport sys\nprint('hello', file=sys.stderr)\n" + GOOD,
        "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,)).start()\n" + GOOD,
        "import sys\nsys.stdout.close()\n" + GOOD,
        "f = max\n",
        "async def f(prompt, completions): return [1.0 for _ in completions]\n",
        "class F:\n    def __call__(self, prompt, completion, more=1): return 1.0\nf = F()\n",
        "def __getattr__(name): raise AttributeError(name)\n" + GOOD,
    ],
)
def test_a_module_that_can_be_used_passes_whatever_else_it_does(text: str) -> None:
    assert tried(text) == []


def test_a_module_that_blocks_is_refused_at_the_deadline_and_leaves_no_process() -> None:
    starts = "import subprocess, time\nsubprocess.Popen(['sleep', '3601.5'])\ntime.sleep(3600)\n"
    (mistake,) = tried(starts, deadline_s=5.0)
    assert mistake.rule == "its import was not over after 5 s"
    until_s = time.monotonic() + 10
    while any("3601.5" in process.info["cmdline"] for process in _processes()):
        assert time.monotonic() < until_s
        time.sleep(0.1)


def _processes() -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if process.info["cmdline"]]


def test_a_name_that_was_misspelt_is_guessed() -> None:
    (mistake,) = tried("def reward(p, c): return 1.0\n", "rewrad")
    assert mistake.remedy.endswith(":reward?")


def test_a_module_that_is_not_there_says_where_it_is_looked_for() -> None:
    (mistake,) = reward_mistakes("absent_module_of_this_test:f")
    assert mistake.rule == "there is no module absent_module_of_this_test here"
    assert "PYTHONPATH" in mistake.remedy


@pytest.mark.parametrize("command", ["check", "train"])
def test_check_and_train_say_it_in_one_line_and_start_nothing(tmp_path: Path, command: str) -> None:
    model = paper_model(tmp_path / "model")
    (tmp_path / "exits.py").write_text("print('out')\nimport sys\nsys.exit('no key')\n")
    wanted = [f"model={model}", "judge.kind=function", "judge.function=exits:f", "judge.noise_fraction=0"]
    script = "import sys; from dynalign.launch.cli import main; sys.exit(main())"
    ended = python(script, command, "quickstart", *wanted)
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "judge.function = 'exits:f': its import raised SystemExit: no key (exits.py:3); "
    )
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
