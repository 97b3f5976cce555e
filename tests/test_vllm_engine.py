"""The real engine, started once: vLLM on a tiny random model, checked against transformers on the same weights."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from configs.errors import EngineError
from configs.schema import RolloutSettings
from learner.weights import make_version
from rollout.contexts import Contexts, load_contexts
from rollout.engine import EngineRequest, EngineResult
from tests.chat_models import tiny_chat_model

T = TypeVar("T")
TOLERANCE_NATS = 0.05  # bfloat16 kernels of two libraries; wrong weights differ by whole nats


@dataclass
class Live:
    """The engine on its own event loop, and the transformers model that holds the weights the engine should hold."""

    engine: Any
    model: Any
    contexts: Contexts
    folder: Path
    loop: asyncio.AbstractEventLoop
    step: int = 0
    labels: list[str] = field(default_factory=list)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=120)

    def ask(self, *requests: EngineRequest) -> list[EngineResult]:
        async def all_of_them() -> list[EngineResult]:
            return list(await asyncio.gather(*(self.engine.generate(request) for request in requests)))

        return self.run(all_of_them())

    def published(self, seed: int) -> tuple[str, bytes, Path]:
        """New random weights in the transformers model, and the same as a version in a file."""
        torch.manual_seed(seed)
        self.step += 1
        for parameter in self.model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
        named = [(name, tensor) for name, tensor in self.model.state_dict().items() if name != "lm_head.weight"]
        manifest, buckets = make_version(iter(named), 1, self.step, "bfloat16", 1 << 16)
        file = self.folder / f"version-{self.step}"
        file.write_bytes(b"".join(bytes(bucket) for bucket in buckets))
        return f"1.{self.step}", manifest.pack(), file

    def push(self, seed: int) -> None:
        self.run(self.engine.load_weights(*self.published(seed)))

    def log_softmax(self, token_ids: tuple[int, ...]) -> np.ndarray:
        with torch.no_grad():
            return self.model(torch.tensor([token_ids])).logits[0].float().log_softmax(-1).numpy()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tiny_chat_model(tmp_path_factory.mktemp("model"), tied=True)
    from rollout.vllm_engine import VllmEngine

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    settings = RolloutSettings(kv_cache_gib=0.1, max_sequences=16)
    started = asyncio.run_coroutine_threadsafe(VllmEngine.start(str(folder), settings, 512, "1.0"), loop)
    engine = started.result(timeout=110)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    yield Live(engine, model, load_contexts(folder, "Be kind.", "2026-01-01"), folder, loop)
    asyncio.run_coroutine_threadsafe(engine.close(), loop).result(timeout=60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)


def context(live: Live, prompt: str) -> tuple[int, ...]:
    return live.contexts.sampling_context(prompt)


def test_sampled_tokens_come_with_their_raw_log_probabilities(live: Live) -> None:
    ids = context(live, "Tell me about wells")
    (result,) = live.ask(EngineRequest(ids, max_tokens=20, seed=1))
    expected = live.log_softmax(ids + result.token_ids)[len(ids) - 1 : -1]
    taken = [row[token] for row, token in zip(expected, result.token_ids, strict=True)]
    assert np.abs(np.array(taken) - result.logprobs_T).mean() < TOLERANCE_NATS


def test_a_request_repeats_with_its_seed_and_differs_with_another(live: Live) -> None:
    ids = context(live, "Again")
    first, other, again = live.ask(*(EngineRequest(ids, max_tokens=12, seed=seed) for seed in (4, 5, 4)))
    assert first.token_ids == again.token_ids
    assert first.token_ids != other.token_ids


def test_a_verdict_is_one_digit_with_the_raw_log_probabilities_of_all_six(live: Live) -> None:
    ids, digits = context(live, "Judge"), live.contexts.digit_ids()
    (result,) = live.ask(EngineRequest(ids, digit_ids=digits))
    expected_6 = live.log_softmax(ids)[-1][list(digits)]
    assert np.abs(expected_6 - np.array(result.digit_logprobs_6)).max() < 2 * TOLERANCE_NATS
    assert result.token_ids[0] == digits[int(np.argmax(result.digit_logprobs_6 or ()))]


def test_a_prefill_scores_the_given_tokens_and_no_others(live: Live) -> None:
    ids, completion = context(live, "Prefill"), tuple(live.contexts.tokenizer.encode("some words", add_special_tokens=False))
    (result,) = live.ask(EngineRequest(ids + completion, prefill_from=len(ids)))
    expected = live.log_softmax(ids + completion)[len(ids) - 1 : -1]
    taken = [row[token] for row, token in zip(expected, completion, strict=True)]
    assert np.abs(np.array(taken) - result.prefill_logprobs_T).mean() < TOLERANCE_NATS


def test_new_weights_are_really_the_new_weights_the_tied_head_included(live: Live) -> None:
    ids, digits = context(live, "After the update"), live.contexts.digit_ids()
    before = live.log_softmax(ids)[-1]
    live.push(seed=1)
    after = live.log_softmax(ids)[-1]
    (verdict,) = live.ask(EngineRequest(ids, digit_ids=digits))
    assert np.abs(after - before)[list(digits)].max() > 10 * TOLERANCE_NATS
    assert np.abs(after[list(digits)] - np.array(verdict.digit_logprobs_6)).max() < 2 * TOLERANCE_NATS
    assert verdict.spans[0].version == live.step


def test_a_prefix_cached_under_old_weights_is_not_served_under_new_ones(live: Live) -> None:
    ids, digits = context(live, "A long shared prefix " * 8), live.contexts.digit_ids()
    live.ask(EngineRequest(ids, digit_ids=digits))  # fills the cache
    live.push(seed=2)
    (verdict,) = live.ask(EngineRequest(ids, digit_ids=digits))
    assert np.abs(live.log_softmax(ids)[-1][list(digits)] - np.array(verdict.digit_logprobs_6)).max() < 2 * TOLERANCE_NATS


def test_sequences_in_flight_go_on_under_the_new_weights_with_every_token_stamped(live: Live) -> None:
    ids = context(live, "In flight")
    version = live.published(seed=3)

    async def story() -> tuple[list[EngineResult], float]:
        flying = [asyncio.create_task(live.engine.generate(EngineRequest(ids, max_tokens=300, seed=seed))) for seed in range(6)]
        await asyncio.sleep(0.3)
        pause_s = await live.engine.load_weights(*version)
        return list(await asyncio.gather(*flying)), pause_s

    results, pause_s = live.run(story())
    for result in results:
        assert [span.start for span in result.spans] == [0, *(span.end for span in result.spans[:-1])]
        assert result.spans[-1].end == len(result.token_ids)
    switched = [result for result in results if len(result.spans) == 2]
    assert switched
    assert {tuple(span.version for span in result.spans) for result in switched} == {(live.step - 1, live.step)}
    assert 0 < pause_s < 30


def test_an_update_that_fails_kills_the_engine_for_good(live: Live) -> None:
    """The last test: it ends the engine."""
    label, manifest, file = live.published(seed=4)
    file.unlink()
    with pytest.raises(Exception, match="version-"):
        live.run(live.engine.load_weights(label, manifest, file))
    with pytest.raises(EngineError, match="failed half-way"):
        live.ask(EngineRequest(context(live, "Anyone?"), max_tokens=2))
