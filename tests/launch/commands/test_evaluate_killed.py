import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.worlds.killed_evaluation import PROMPTS, QUESTIONS, evaluate
from tests.worlds.product import ROOT
from tests.worlds.scripted_endpoint import Exchange, scripted_endpoint

IN_FLIGHT = 8
"""The concurrency of the endpoint's settings."""


@pytest.mark.parametrize("answered", [PROMPTS // 2, 3 * PROMPTS])
def test_a_kill_in_the_middle_repeats_at_most_what_was_in_flight(tmp_path: Path, answered: int) -> None:
    hold = threading.Event()

    def answers_so_many(exchange: Exchange) -> None:
        if len(exchange.server.asked) > answered:
            hold.wait(60)
        exchange.answer()

    with scripted_endpoint(act=answers_so_many) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.worlds.killed_evaluation", server.address, str(tmp_path)], cwd=ROOT
        )
        deadline = time.monotonic() + 100
        while len(server.asked) <= answered and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        process.wait(20)
        before = len(server.asked)
        assert answered < before <= answered + IN_FLIGHT
        hold.set()
        server.act = Exchange.answer
        assert evaluate(server.address, tmp_path) == 0
        assert len(server.asked) <= QUESTIONS + IN_FLIGHT
        asked_at_first = len(server.asked)
        assert evaluate(server.address, tmp_path) == 0
        assert len(server.asked) == asked_at_first  # everything was in the journal
    card = json.loads((tmp_path / "evaluation.json").read_text())
    assert card["figures"]["judges"][0]["counts"]["unread"] == 2 * PROMPTS
    assert card["figures"]["win_rate"] is None
