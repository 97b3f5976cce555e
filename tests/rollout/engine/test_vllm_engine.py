"""The real engine, started once: vLLM on a tiny random model, against transformers on its weights."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from dynalign.configs.errors import EngineError, RequestRefused, TransferFailed
from dynalign.learner.weights import Staging, stage_version
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.rollout.engine.base import EngineRequest, EngineResult
from dynalign.rollout.weights.broadcast import Root, ready
from dynalign.rollout.weights.source import BroadcastMember
from tests.worlds.chat_models import tiny_chat_model
from tests.worlds.live_engine import TOLERANCE_NATS, LiveEngine, live_engine, log_softmax, mismatch_nats


@dataclass
class Live:
    """The engine, and the transformers model that holds the weights the engine should hold."""

    engine: LiveEngine
    model: Any
    contexts: Contexts

    def ask(self, *requests: EngineRequest) -> list[EngineResult]:
        return self.engine.ask(*requests)

    def renewed(self, seed: int) -> list[tuple[str, Tensor]]:
        """New random weights in the transformers model, under their names on disk."""
        torch.manual_seed(seed)
        for parameter in self.model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
        state = self.model.state_dict()
        return [(name, tensor) for name, tensor in state.items() if name != "lm_head.weight"]

    def published(self, seed: int) -> tuple[str, bytes, Path]:
        """New random weights, as a version in a file."""
        return self.engine.version(self.renewed(seed))

    def staged(self, seed: int) -> tuple[str, bytes, list[Tensor]]:
        """New random weights: label, manifest and buckets of a version that is to be sent."""
        self.engine.step += 1
        staging = Staging(torch.device("cpu"))
        manifest = stage_version(staging, self.renewed(seed), 1, self.engine.step, "bfloat16", 1 << 16)
        return f"1.{self.engine.step}", manifest.pack(), staging.buckets

    def push(self, seed: int) -> None:
        self.engine.run(self.engine.engine.load_weights(*self.published(seed)))

    def log_softmax(self, token_ids: tuple[int, ...]) -> np.ndarray:
        return log_softmax(self.model, token_ids)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tiny_chat_model(tmp_path_factory.mktemp("model"), tied=True)
    with live_engine(folder) as engine:
        yield Live(
            engine,
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16),
            load_contexts(folder, "Be kind.", "2026-01-01"),
        )


def context(live: Live, prompt: str) -> tuple[int, ...]:
    return live.contexts.sampling_context(prompt)


def test_sampled_tokens_come_with_their_raw_log_probabilities(live: Live) -> None:
    ids = context(live, "Tell me about wells")
    (result,) = live.ask(EngineRequest(ids, max_tokens=20, seed=1))
    assert mismatch_nats(live.model, ids, result) < TOLERANCE_NATS


def test_a_request_repeats_with_its_seed_and_differs_with_another(live: Live) -> None:
    ids = context(live, "Again")
    first, other, again = live.ask(*(EngineRequest(ids, max_tokens=12, seed=seed) for seed in (4, 5, 4)))
    assert first.token_ids == again.token_ids
    assert first.token_ids != other.token_ids


def test_a_verdict_is_one_digit_with_the_raw_log_probabilities_of_all_six(live: Live) -> None:
    ids, digits = context(live, "Judge"), live.contexts.digit_ids()
    (result,) = live.ask(EngineRequest(ids, choice_ids=digits))
    expected_6 = live.log_softmax(ids)[-1][list(digits)]
    assert np.abs(expected_6 - np.array(result.choice_logprobs)).max() < 2 * TOLERANCE_NATS
    assert result.token_ids[0] == digits[int(np.argmax(result.choice_logprobs or ()))]


def test_at_temperature_0_each_token_is_the_likeliest_beside_requests_at_temperature_1(live: Live) -> None:
    ids = context(live, "Greedy")
    greedy, again, sampled = live.ask(
        EngineRequest(ids, max_tokens=8, seed=1, temperature=0.0),
        EngineRequest(ids, max_tokens=8, seed=2, temperature=0.0),
        EngineRequest(ids, max_tokens=8, seed=2),
    )
    assert greedy.token_ids == again.token_ids != sampled.token_ids
    rows = live.log_softmax(ids + greedy.token_ids)[len(ids) - 1 : -1]
    short_of_the_best = rows.max(-1) - rows[range(len(greedy.token_ids)), greedy.token_ids]
    assert short_of_the_best.max() < TOLERANCE_NATS


def test_a_request_that_vllm_refuses_leaves_the_engine_as_it_was(live: Live) -> None:
    ids = context(live, "Refused")
    for refused in (
        EngineRequest(ids, max_tokens=2, temperature=9.0),
        EngineRequest(ids, max_tokens=2, json_schema='{"type": "no such type"}'),
        EngineRequest(ids * 50, max_tokens=2),
    ):
        with pytest.raises(RequestRefused, match="vLLM refused a request of"):
            live.ask(refused)
    (result,) = live.ask(EngineRequest(ids, max_tokens=2))
    assert result.token_ids


def test_a_prefill_scores_the_given_tokens_and_no_others(live: Live) -> None:
    ids = context(live, "Prefill")
    completion = tuple(live.contexts.tokenizer.encode("some words", add_special_tokens=False))
    (result,) = live.ask(EngineRequest(ids + completion, prefill_from=len(ids)))
    expected = live.log_softmax(ids + completion)[len(ids) - 1 : -1]
    taken = [row[token] for row, token in zip(expected, completion, strict=True)]
    assert np.abs(np.array(taken) - result.prefill_logprobs_T).mean() < TOLERANCE_NATS


def test_new_weights_are_really_the_new_weights_the_tied_head_included(live: Live) -> None:
    ids, digits = context(live, "After the update"), live.contexts.digit_ids()
    before = live.log_softmax(ids)[-1]
    live.push(seed=1)
    after = live.log_softmax(ids)[-1]
    (verdict,) = live.ask(EngineRequest(ids, choice_ids=digits))
    assert np.abs(after - before)[list(digits)].max() > 10 * TOLERANCE_NATS
    assert np.abs(after[list(digits)] - np.array(verdict.choice_logprobs)).max() < 2 * TOLERANCE_NATS
    assert verdict.spans[0].version == live.engine.step


def test_a_prefix_cached_under_old_weights_is_not_served_under_new_ones(live: Live) -> None:
    ids, digits = context(live, "A long shared prefix " * 8), live.contexts.digit_ids()
    live.ask(EngineRequest(ids, choice_ids=digits))  # fills the cache
    live.push(seed=2)
    (verdict,) = live.ask(EngineRequest(ids, choice_ids=digits))
    expected_6 = live.log_softmax(ids)[-1][list(digits)]
    assert np.abs(expected_6 - np.array(verdict.choice_logprobs)).max() < 2 * TOLERANCE_NATS


def test_sequences_in_flight_go_on_under_the_new_weights_with_every_token_stamped(live: Live) -> None:
    ids = context(live, "In flight")
    version = live.published(seed=3)

    async def loaded_under_way() -> tuple[list[EngineResult], float]:
        flying = [
            asyncio.create_task(live.engine.engine.generate(EngineRequest(ids, max_tokens=300, seed=seed)))
            for seed in range(6)
        ]
        await asyncio.sleep(0.3)
        pause_s = await live.engine.engine.load_weights(*version)
        return list(await asyncio.gather(*flying)), pause_s

    results, pause_s = live.engine.run(loaded_under_way())
    for result in results:
        assert [span.start for span in result.spans] == [0, *(span.end for span in result.spans[:-1])]
        assert result.spans[-1].end == len(result.token_ids)
    switched = [result for result in results if len(result.spans) == 2]
    assert switched
    versions = {tuple(span.version for span in result.spans) for result in switched}
    assert versions == {(live.engine.step - 1, live.engine.step)}
    assert 0 < pause_s < 30


def test_a_version_comes_by_broadcast_and_one_whose_epoch_fails_leaves_the_engine_as_it_was(
    live: Live,
) -> None:
    ids, digits = context(live, "By broadcast"), live.contexts.digit_ids()
    (before,) = live.ask(EngineRequest(ids, choice_ids=digits))
    root = Root("127.0.0.1", deadline_s=4.0, gather_s=0.5)

    def members(*names: str) -> list[BroadcastMember]:
        with ThreadPoolExecutor(len(names)) as pool:
            return list(pool.map(lambda name: ready("127.0.0.1", root.port, label, name, 1, 4.0), names))

    label, manifest, buckets = live.staged(seed=6)
    root.send(label, buckets)
    member, _ = members("rollout-0", "one that dies")
    with pytest.raises(TransferFailed, match="another member"):
        live.engine.run(live.engine.engine.load_weights(label, manifest, member))
    (still,) = live.ask(EngineRequest(ids, choice_ids=digits))
    assert (still.spans, still.choice_logprobs) == (before.spans, before.choice_logprobs)
    root.settle()
    label, manifest, buckets = live.staged(seed=7)
    root.send(label, buckets)
    (member,) = members("rollout-0")
    pause_s = live.engine.run(live.engine.engine.load_weights(label, manifest, member))
    root.settle()
    (after,) = live.ask(EngineRequest(ids, choice_ids=digits))
    expected_6 = live.log_softmax(ids)[-1][list(digits)]
    assert np.abs(expected_6 - np.array(after.choice_logprobs)).max() < 2 * TOLERANCE_NATS
    assert np.abs(np.array(after.choice_logprobs) - before.choice_logprobs).max() > 10 * TOLERANCE_NATS
    assert after.spans[0].version == live.engine.step
    assert 0 < pause_s < 30


def test_an_update_that_fails_kills_the_engine_for_good(live: Live) -> None:
    """The last test: it ends the engine."""
    label, manifest, file = live.published(seed=4)
    file.unlink()
    with pytest.raises(Exception, match="version-"):
        live.engine.run(live.engine.engine.load_weights(label, manifest, file))
    with pytest.raises(EngineError, match="failed half-way"):
        live.ask(EngineRequest(context(live, "Anyone?"), max_tokens=2))


def test_an_engine_starts_on_a_gpu_that_a_learner_has_most_of() -> None:
    """By vLLM's own check, for a GPU of 80 GiB of which 24 are free."""
    from vllm.config import CacheConfig
    from vllm.utils.mem_utils import MemorySnapshot
    from vllm.v1.worker.utils import request_memory

    from dynalign.rollout.engine.vllm import device_arguments

    gib = 2**30
    free = MemorySnapshot(free_memory=24 * gib, total_memory=80 * gib, device="cpu", auto_measure=False)
    share = device_arguments(16 * gib, 80 * gib)["gpu_memory_utilization"]
    assert request_memory(free, CacheConfig(gpu_memory_utilization=share)) == 16 * gib
    with pytest.raises(ValueError, match="less than desired GPU memory utilization"):
        request_memory(free, CacheConfig())


@pytest.mark.e2e
def test_requests_in_flight_end_at_once_when_the_engines_process_is_killed(tmp_path: Path) -> None:
    with live_engine(tiny_chat_model(tmp_path)) as live:
        ids = load_contexts(tmp_path, "Be kind.", "2026-01-01").sampling_context("Wait")
        children = psutil.Process().children(recursive=True)
        (core,) = [child for child in children if "EngineCore" in child.name()]

        async def killed_under_way() -> tuple[list[object], float]:
            flying = [
                asyncio.create_task(live.engine.generate(EngineRequest(ids, max_tokens=300, seed=seed)))
                for seed in range(4)
            ]
            await asyncio.sleep(0.3)
            core.kill()
            started_s = time.monotonic()
            return list(await asyncio.gather(*flying, return_exceptions=True)), time.monotonic() - started_s

        ends, took_s = live.run(killed_under_way())
        assert [type(end) for end in ends] == [EngineError] * 4
        assert took_s < 10
        with pytest.raises(EngineError, match="died"):
            live.ask(EngineRequest(ids, max_tokens=2))


def test_tokens_without_an_adapter_get_none_beside_tokens_with_one() -> None:
    """On a CPU, by vLLM's own functions for prompts and for decoding."""
    from vllm.lora.punica_wrapper import punica_cpu

    from dynalign.rollout.engine import vllm_cpu  # noqa: F401  it closes the gap when it is imported

    inputs, factors_a = torch.randn(5, 8), torch.randn(1, 1, 4, 8)
    adapter_T = torch.tensor([0, -1, 0, -1, -1])
    decoded, prefilled = torch.ones(5, 4), torch.ones(5, 4)
    punica_cpu.bgmv_shrink(inputs, factors_a, decoded, adapter_T, 0.5)
    each = torch.ones(5, dtype=torch.long)
    punica_cpu.sgmv_shrink(inputs, factors_a, prefilled, each.cumsum(0) - 1, each, adapter_T, 5, 1, 5, 0.5)
    expected = 0.5 * inputs @ factors_a[0, 0].T * (adapter_T == 0)[:, None]
    assert torch.allclose(decoded, expected, atol=1e-6)
    assert torch.equal(prefilled, decoded)
