"""Weights within one GPU and between two, on real engines (`pytest -m gpu`): loaded completely, or not at
all.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

# Otherwise `is_available` would initialize CUDA, which a forked engine cannot do a second time.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

import pytest
import torch
import yaml
from torch import Tensor
from transformers import AutoModelForCausalLM

from dynalign.configs.errors import EngineError, TransferFailed
from dynalign.learner.weights import Staging, stage_version
from dynalign.rollout.engine.base import EngineRequest
from dynalign.rollout.weights.broadcast import Root, ready
from dynalign.rollout.weights.device_memory import shared
from dynalign.rollout.weights.source import BroadcastMember, MemoryHandle
from dynalign.run_folder.metrics import read_metrics
from tests.worlds.chat_models import tiny_chat_model
from tests.worlds.command import ENVIRONMENT, dynalign
from tests.worlds.live_engine import TOLERANCE_NATS, LiveEngine, live_engine, mismatch_nats

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]
two_gpus = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="NCCL takes one process per GPU, and there is one"
)

IDS = tuple(range(40, 60))
DEADLINE_S = 10.0


class Sender:
    """A learner's side of versions 1, 2, …: random weights on a GPU, and the model that has them."""

    def __init__(self, folder: Path, live: LiveEngine, gpu: int) -> None:
        self.live, self.staging = live, Staging(torch.device("cuda", gpu))
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)

    def stage(self) -> tuple[str, bytes]:
        """Label and manifest of new weights, which lie on the GPU."""
        self.live.step += 1
        torch.manual_seed(self.live.step)
        for parameter in self.model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
        tensors = (
            (name, tensor) for name, tensor in self.model.state_dict().items() if name != "lm_head.weight"
        )
        manifest = stage_version(self.staging, tensors, 1, self.live.step, "bfloat16", 1 << 16)
        return f"1.{self.live.step}", manifest.pack()

    def is_in_the_engine(self) -> bool:
        (result,) = self.live.ask(EngineRequest(IDS, max_tokens=24, seed=1))
        held = mismatch_nats(self.model, IDS, result) < TOLERANCE_NATS
        assert held == ({span.version for span in result.spans} == {self.live.step})
        return held


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_chat_model(tmp_path / "model")


@pytest.fixture
def live(folder: Path) -> Iterator[LiveEngine]:
    with live_engine(folder) as engine:
        yield engine


def test_an_engine_reads_the_learner_s_memory_version_after_version(live: LiveEngine, folder: Path) -> None:
    sender, handles = Sender(folder, live, 0), tuple[MemoryHandle, ...]()
    for _ in range(3):
        label, manifest = sender.stage()
        handles = handles or tuple(shared(bucket) for bucket in sender.staging.kept)
        assert len(handles) > 2
        live.run(live.engine.load_weights(label, manifest, handles))
        assert sender.is_in_the_engine()


def test_memory_that_is_not_the_version_any_more_or_not_there_leaves_the_engine_as_it_was(
    live: LiveEngine, folder: Path
) -> None:
    sender = Sender(folder, live, 0)
    label, manifest = sender.stage()
    handles = tuple(shared(bucket) for bucket in sender.staging.kept)
    sender.staging.kept[-1][0] ^= 1
    torch.cuda.synchronize()
    with pytest.raises(TransferFailed, match="does not match its checksum"):
        live.run(live.engine.load_weights(label, manifest, handles))
    with pytest.raises(TransferFailed, match="the engine is on"):
        live.run(
            live.engine.load_weights(
                label, manifest, tuple(replace(handle, gpu="GPU-of-another-node") for handle in handles)
            )
        )
    assert not sender.is_in_the_engine()
    label, manifest = sender.stage()
    live.run(live.engine.load_weights(label, manifest, handles))
    assert sender.is_in_the_engine()


def epoch(root: Root, sender: Sender, *names: str) -> tuple[str, bytes, list[BroadcastMember]]:
    """Begins the epoch of a new version, with these members."""
    root.settle()
    label, manifest = sender.stage()
    root.send(label, sender.staging.buckets)
    with ThreadPoolExecutor(len(names)) as pool:
        members = pool.map(lambda name: ready("127.0.0.1", root.port, label, name, 1, DEADLINE_S), names)
        return label, manifest, list(members)


@two_gpus
def test_an_engine_on_another_gpu_gets_versions_by_broadcast_in_one_group(
    live: LiveEngine, folder: Path
) -> None:
    root, sender, groups = Root("127.0.0.1", DEADLINE_S), Sender(folder, live, 1), set()
    for _ in range(3):
        label, manifest, (member,) = epoch(root, sender, "rollout-0")
        live.run(live.engine.load_weights(label, manifest, member))
        assert sender.is_in_the_engine()
        groups.add(member.group)
    root.settle()
    assert len(groups) == 1


@two_gpus
def test_an_epoch_that_a_member_misses_leaves_the_engine_as_it_was(live: LiveEngine, folder: Path) -> None:
    root, sender = Root("127.0.0.1", DEADLINE_S), Sender(folder, live, 1)
    label, manifest, (member, _) = epoch(root, sender, "rollout-0", "one that dies")
    with pytest.raises(TransferFailed, match="another member"):
        live.run(live.engine.load_weights(label, manifest, member))
    assert not sender.is_in_the_engine()
    label, manifest, (member,) = epoch(root, sender, "rollout-0")
    live.run(live.engine.load_weights(label, manifest, member))
    root.settle()
    assert sender.is_in_the_engine()


@two_gpus
def test_a_root_that_stops_ends_the_engine_by_the_deadline_and_a_stopped_engine_does_not_end_the_root(
    live: LiveEngine, folder: Path
) -> None:
    root, sender = Root("127.0.0.1", DEADLINE_S), Sender(folder, live, 1)
    root.settle()
    label, manifest = sender.stage()
    half: list[Tensor] = sender.staging.buckets[:1]
    root.send(label, half)
    member = ready("127.0.0.1", root.port, label, "rollout-0", 1, DEADLINE_S)
    started_s = time.monotonic()
    with pytest.raises(Exception, match="no bytes of a weight version"):
        live.run(live.engine.load_weights(label, manifest, member))
    assert time.monotonic() - started_s < 3 * DEADLINE_S
    with pytest.raises(EngineError, match="failed half-way"):
        live.ask(EngineRequest(IDS, max_tokens=2))
    epoch(root, sender, "rollout-0")  # its engine is dead, and never joins
    root.settle()
    assert time.monotonic() - started_s < 8 * DEADLINE_S


@pytest.mark.parametrize("turns", [{"mode": "shared"}, {"mode": "separate", "rollout_gpu_fraction": 0.5}])
def test_a_whole_run_on_one_gpu_pushes_through_its_memory(
    folder: Path, tmp_path: Path, turns: dict[str, Any]
) -> None:
    """Learner and engine in turn, or each with its share: every version comes as it was offered."""
    settings = {
        "model": str(folder),
        "steps": 3,
        "prompts": {"max_tokens": 1400},
        "rollout": {"prompts_per_step": 2, "group_size": 4, "max_completion_tokens": 24, "kv_cache_gib": 0.2},
        "judge": {"min_digit_mass": 0.0},
        "algorithm": {"max_staleness": 0},
        "learner": {"learning_rate": 1e-3, "token_budget": 2048},
        "heldout": {"prompts": 0},
        "weights": {"transport": "ipc"},
        "placement": {"device": "gpu", "object_store_gib": 0.2} | turns,
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    command = dynalign("train", str(tmp_path / "tiny.yaml"), f"runs={tmp_path / 'runs'}")
    # Tests set DS_ACCELERATOR to the CPU.
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "DS_ACCELERATOR"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=800, env=environment)
    told = ended.stdout + ended.stderr
    assert ended.returncode == 0, told
    assert not [line for line in told.splitlines() if "takes it from the object store" in line]
    rows = read_metrics(tmp_path / "runs" / "tiny")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert all(0 < row["weight_sync_pause_s"] < 30 for row in rows[2:])
