"""Two ranks, in processes of their own over gloo, take the step that one rank takes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dynalign.learner.deepspeed_engine import TAG
from tests.worlds.one_rank import free_port
from tests.worlds.tiny_models import tiny_llama
from tests.worlds.train_rank import CASES, SAVE_S, train

ROOT = Path(__file__).parents[2]
LEARNING_RATE = 1e-2
EXACT = ("reward_mean", "completion_tokens", "staleness_mean", "learning_rate")
CLOSE = (
    "loss",
    "grad_norm",
    "entropy",
    "kl",
    "ratio_mean",
    "ratio_max",
    "effective_sample_size",
    "logprob_mismatch_mean",
)


pytestmark = pytest.mark.timeout(600)  # the fixture trains every case


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("wide"), hidden=128, vocabulary=1024)


@pytest.fixture(scope="module")
def two_ranks(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what two ranks made of every case."""
    out: Path = tmp_path_factory.mktemp("two")
    port = str(free_port())
    environment = {
        name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "MASTER_PORT")
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.worlds.train_rank", rank, "2", port, str(llama), str(out), *CASES],
            cwd=ROOT,
            env=environment,
        )
        for rank in ("0", "1")
    ]
    try:
        # A rank that has failed leaves the other one in a collective. One that hangs ends by itself.
        while not any(rank.poll() for rank in ranks) and None in [rank.poll() for rank in ranks]:
            time.sleep(0.1)
        assert [rank.poll() for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return out


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_equal_one_rank(llama: Path, two_ranks: Path, case: str) -> None:
    one = train(case, llama, 0, 1)
    assert one is not None
    report, weights = one
    other = json.loads((two_ranks / f"{case}.json").read_text())
    assert {name: other[name] for name in EXACT} == {name: report[name] for name in EXACT}
    for name in CLOSE:
        assert other[name] == (
            None if report[name] is None else pytest.approx(report[name], rel=2e-4, abs=1e-6)
        ), name
    published = load_file(two_ranks / f"{case}.safetensors")
    # Adam divides by the gradient's own size: where the gradient is rounding alone, the sign of the step is
    # chance.
    differing = sum(
        int(((published[name] - tensor).abs() > 0.02 * LEARNING_RATE).sum())
        for name, tensor in weights.items()
    )
    assert differing <= sum(tensor.numel() for tensor in weights.values()) / 1000
    assert any(
        not torch.equal(tensor, load_file(llama / "model.safetensors")[name])
        for name, tensor in weights.items()
    )


def tensors(state: object) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for part in state.values() if isinstance(state, dict) else state:
            yield from tensors(part)


@pytest.mark.parametrize("case", CASES)
def test_when_one_rank_cannot_write_all_ranks_hear_of_it_at_once_and_the_next_save_is_whole(
    two_ranks: Path, case: str
) -> None:
    """The weights that are compared above were published after these saves."""
    first, second = (json.loads((two_ranks / f"{case}.rank-{rank}.json").read_text()) for rank in (0, 1))
    assert {what: error for what, (error, _) in first.items()} == {
        what: error for what, (error, _) in second.items()
    }
    assert all(taken_s < SAVE_S for told in (first, second) for _, taken_s in told.values())
    for what, (error, _) in first.items():
        assert ("File too large" in error) == what.endswith("full"), (what, error)
    assert "learner rank 1: " in first["state, rank 1 full"][0]
    folder = two_ranks / f"{case}.checkpoints"
    whole, again = (
        [
            tensor
            for file in sorted((folder / name / TAG).iterdir())
            for tensor in tensors(torch.load(file, weights_only=False))
        ]
        for name in ("whole", "again")
    )
    assert sum(tensor.numel() for tensor in whole) > 10_000
    assert all(torch.equal(before, after) for before, after in zip(whole, again, strict=True))
    assert (folder / "hf" / "model.safetensors").stat().st_size > 100_000
