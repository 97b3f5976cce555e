"""The transport between GPUs, run on CPUs by gloo: a learner publishes, an engine takes part, a second one is
late.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
from transformers import AutoModelForCausalLM

from dynalign.actors.transports.nccl import NcclPublisher
from dynalign.actors.worker.weight_loader import WeightLoader
from dynalign.configs.sections.rollout import RolloutSettings
from dynalign.rollout.engine.base import EngineRequest
from dynalign.rollout.engine.swap_gate import SwapGate
from tests.worlds.chat_models import tiny_chat_model
from tests.worlds.live_engine import TOLERANCE_NATS, LiveEngine, live_engine, mismatch_nats
from tests.worlds.one_rank import Learner
from tests.worlds.tiny_groups import payloads, random_groups
from tests.worlds.tiny_models import settings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

IDS = tuple(range(40, 60))
DEADLINE_S = 40.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[LiveEngine]:
    ray.init(address="local", num_cpus=1, object_store_memory=100_000_000, include_dashboard=False)
    try:
        with live_engine(folder) as engine:
            yield engine
    finally:
        ray.shutdown()


def test_what_the_learner_learned_is_in_the_engine_after_a_broadcast_and_in_a_late_one_after_a_fallback(
    live: LiveEngine, folder: Path, tmp_path: Path
) -> None:
    run = settings(folder, learning_rate=0.05).model_copy(
        update={"rollout": RolloutSettings(group_size=4, max_completion_tokens=16)}
    )
    learner, publisher = Learner(run, folder, 0, 1), NcclPublisher(DEADLINE_S)
    worker, late = (
        WeightLoader(live.engine, SwapGate(), name, 1, DEADLINE_S) for name in ("rollout-0", "rollout-1")
    )
    held: list[str] = []
    for step in (1, 2):
        learner.prepare(step, *payloads(random_groups(2, seed=step)))
        learner.run(step)
        version = publisher.publish(learner, 1) or pytest.fail("rank 0 publishes")
        pause_s = live.run(worker.load(version, lambda: held.append("rollout-0")))
        assert 0 < pause_s < DEADLINE_S
        assert agrees(live, learner, tmp_path / f"step-{step}", step)
    assert (worker.fallbacks, held) == (0, ["rollout-0", "rollout-0"])
    live.run(late.load(version, lambda: held.append("rollout-1")))
    assert late.fallbacks == 1
    assert agrees(live, learner, tmp_path / "late", 2)


def test_a_staged_version_is_the_one_that_the_object_store_would_carry(folder: Path) -> None:
    learner = Learner(settings(folder), folder, 0, 1)
    staging = learner.stage(1) or pytest.fail("rank 0 stages")
    plain, buckets = learner.weights(1) or pytest.fail("rank 0 publishes")
    copied, copies = learner.staged(0) or pytest.fail("step 0 is staged")
    assert [bucket.checksum for bucket in copied.buckets] == [bucket.checksum for bucket in plain.buckets]
    assert [copy.tobytes() for copy in copies] == [bucket.tobytes() for bucket in buckets]
    assert len(staging.kept) == len(buckets)
    assert learner.staged(1) is None


def agrees(live: LiveEngine, learner: Learner, exported: Path, step: int) -> bool:
    """The engine answers as the learner's policy does, and says so."""
    learner.export(exported)
    model = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.bfloat16)
    before = AutoModelForCausalLM.from_pretrained(live.folder, dtype=torch.bfloat16)
    (result,) = live.ask(EngineRequest(IDS, max_tokens=24, seed=step))
    assert mismatch_nats(before, IDS, result) > 4 * TOLERANCE_NATS, (
        "the policy has not moved far enough to tell"
    )
    return mismatch_nats(model, IDS, result) < TOLERANCE_NATS and {span.version for span in result.spans} == {
        step
    }
