"""`dynalign evaluate pairwise` with vLLM's own server as the judge, and both models on engines of our own."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.chat_models import tiny_chat_model
from tests.worlds.command import ENVIRONMENT, dynalign, left_over
from tests.worlds.vllm_server import KEY, VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

PROMPTS = 6


def evaluated(folder: Path) -> dict[str, Any]:
    command = dynalign("evaluate", "pairwise", "--model", str(folder / "one"))
    command += ["--against", str(folder / "other"), "--judge", str(folder / "judge.yaml")]
    command += ["--limit", str(PROMPTS), "--max-tokens", "24", "--judge-tokens", "64"]
    command += ["--engine", "dtype=float32", "--engine", "kv_cache_gib=0.2", "--out", str(folder / "card")]
    environment = ENVIRONMENT | {"SERVER_KEY": KEY}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert left_over() == ()
    assert KEY not in ended.stdout + ended.stderr
    card: dict[str, Any] = json.loads((folder / "card" / "evaluation.json").read_text())
    return card


def test_vllms_own_server_judges_pairs_in_both_orders_and_is_asked_once(tmp_path: Path) -> None:
    tiny_chat_model(tmp_path / "one")
    tiny_chat_model(tmp_path / "other", intermediate_size=96)
    log = tmp_path / "server.log"
    server = VllmServer(tiny_chat_model(tmp_path / "tiny"), log, longest_tokens=8192)
    (tmp_path / "judge.yaml").write_text(
        f"address: {server.address}\nmodel: tiny\nkey_variable: SERVER_KEY\nconcurrency: 4\n"
    )
    server.start()
    try:
        server.wait()
        card = evaluated(tmp_path)
        asked = log.read_text().count("POST /v1/chat/completions")
        again = evaluated(tmp_path)
        asked_again = log.read_text().count("POST /v1/chat/completions") - asked
    finally:
        server.kill()
    assert asked >= 2 * PROMPTS
    assert asked_again < PROMPTS, "verdicts that were paid for are not asked for again"
    assert again["figures"] == card["figures"]
    (judge,) = card["figures"]["judges"]
    counts = judge["counts"]
    given = counts["read"] + counts["unread"] + counts["refused"] + counts["without_asking"]
    assert given == counts["wanted"] == 2 * PROMPTS
    assert counts["refused"] == 0, "a random model answers, whatever it says"
