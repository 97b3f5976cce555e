"""A real vLLM engine on an event loop of its own, called from plain test functions."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dynalign.configs.sections.rollout import RolloutSettings
from dynalign.learner.weights import make_version
from dynalign.rollout.engine.base import EngineRequest, EngineResult
from dynalign.rollout.weights.version import AdapterEntry, checksum

T = TypeVar("T")
TOLERANCE_NATS = 0.05  # bfloat16 kernels of two libraries; wrong weights differ by whole nats


@dataclass
class LiveEngine:
    """An engine, and versions of weights for it."""

    engine: Any
    folder: Path
    loop: asyncio.AbstractEventLoop
    adapter: AdapterEntry | None
    step: int = 0
    """Of the version that was made last."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=120)

    def ask(self, *requests: EngineRequest) -> list[EngineResult]:
        async def all_of_them() -> list[EngineResult]:
            return list(await asyncio.gather(*(self.engine.generate(request) for request in requests)))

        return self.run(all_of_them())

    def version(self, tensors: Iterable[tuple[str, Tensor]]) -> tuple[str, bytes, Path]:
        """The next version, as `load_weights` takes it."""
        self.step += 1
        manifest, buckets = make_version(tensors, 1, self.step, "bfloat16", 1 << 16, self.adapter)
        file = self.folder / f"version-{self.step}"
        file.write_bytes(b"".join(bytes(bucket) for bucket in buckets))
        return f"1.{self.step}", manifest.pack(), file

    def held(self) -> dict[str, str]:
        """Name → checksum of every parameter and buffer in the engine.

        VLLM_ALLOW_INSECURE_SERIALIZATION=1 must be set before the engine starts.
        """
        (sums,) = self.run(self.engine._llm.collective_rpc(_checksums))
        return dict(sums)

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> float:
        return self.run(self.engine.load_weights(*self.version(tensors)))


def _checksums(worker: Any) -> dict[str, str]:
    """The checksums, computed in the engine's process."""
    model = worker.model_runner.get_model()
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {
        name: checksum(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        for name, tensor in tensors.items()
    }


@contextlib.contextmanager
def live_engine(
    folder: Path, adapter: AdapterEntry | None = None, context_tokens: int = 512, **settings: Any
) -> Iterator[LiveEngine]:
    """An engine that holds the model in `folder` as version 1.0."""
    from dynalign.rollout.engine.vllm import VllmEngine

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    chosen = RolloutSettings(**({"kv_cache_gib": 0.1, "max_sequences": 16} | settings))
    starting = VllmEngine.start(str(folder), chosen, context_tokens, "1.0", adapter=adapter)
    engine = asyncio.run_coroutine_threadsafe(starting, loop).result(timeout=110)
    try:
        yield LiveEngine(engine, folder, loop, adapter)
    finally:
        asyncio.run_coroutine_threadsafe(engine.close(), loop).result(timeout=60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)


def log_softmax(model: nn.Module, token_ids: tuple[int, ...]) -> np.ndarray:
    """[T, V]: the model's log-probabilities after each token."""
    with torch.no_grad():
        result: np.ndarray = model(torch.tensor([token_ids])).logits[0].float().log_softmax(-1).numpy()
    return result


def mismatch_nats(model: nn.Module, context: tuple[int, ...], result: EngineResult) -> float:
    """Mean difference between the engine's log-probabilities of what it sampled and the model's."""
    expected = log_softmax(model, context + result.token_ids)[len(context) - 1 : -1]
    taken = [row[token] for row, token in zip(expected, result.token_ids, strict=True)]
    return float(np.abs(np.array(taken) - result.logprobs_T).mean())
