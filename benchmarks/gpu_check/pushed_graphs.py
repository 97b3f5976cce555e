"""Stage: new weights arrive in an engine with captured graphs while it generates, and are what it then uses.

transformers, other weights ─► staged on the device ─► loaded by the engine, sequences in flight
what the engine samples afterwards: its log-probabilities against transformers with these weights
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import torch

from dynalign.benchmarks.gpu_check.random_models import random_model
from dynalign.benchmarks.gpu_check.reference import WRONG_NATS, loaded, mismatch_nats, torch_device
from dynalign.benchmarks.gpu_check.runs import overrides, settings_of
from dynalign.benchmarks.gpu_check.site import Site, require
from dynalign.learner.weights import Staging, make_version, stage_version
from dynalign.rollout.engine.base import EngineRequest
from dynalign.rollout.engine.vllm import VllmEngine
from dynalign.rollout.weights.device_memory import shared
from dynalign.rollout.weights.source import MemoryHandle, Source

VERSIONS = 2
_CONTEXT = tuple(range(300, 332))
_ASKED_TOKENS = 32
_FLYING = 8
_FLYING_TOKENS = {"gpu": 1500, "cpu": 250}
_CONTEXT_TOKENS = 2048
_BUCKET_BYTES = 64 << 20


class ChangedModel:
    """Versions 1, 2, … of a model with other weights each time, as a learner would stage them."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.model: Any = loaded(folder, site.device)
        self._site = site
        self._staging = Staging(torch_device(site.device))
        self._handles: tuple[MemoryHandle, ...] = ()

    def next(self, step: int) -> tuple[str, bytes, Source]:
        """Changes every weight by about its own size; returns what `load_weights` takes."""
        torch.manual_seed(step)
        for weight in self.model.parameters():
            weight.data.add_(torch.randn_like(weight) * weight.data.std().nan_to_num(0.01))
        tensors = [
            (name, tensor) for name, tensor in self.model.state_dict().items() if name != "lm_head.weight"
        ]
        if self._site.device == "gpu":
            manifest = stage_version(self._staging, tensors, 1, step, "bfloat16", _BUCKET_BYTES)
            self._handles = self._handles or tuple(shared(bucket) for bucket in self._staging.kept)
            return f"1.{step}", manifest.pack(), self._handles
        manifest, buckets = make_version(tensors, 1, step, "bfloat16", _BUCKET_BYTES)
        file = self._site.own / f"version-{step}"
        file.write_bytes(b"".join(bytes(bucket) for bucket in buckets))
        return f"1.{step}", manifest.pack(), file


def measure(site: Site) -> None:
    asyncio.run(_measure(site))


async def _measure(site: Site) -> None:
    folder = random_model(site, "0.6B")
    settings = settings_of(overrides(site, folder)).rollout
    started_s = time.monotonic()
    engine = await VllmEngine.start(str(folder), settings, _CONTEXT_TOKENS, "1.0")
    site.figure(eager=str(settings.eager), engine_start_s=time.monotonic() - started_s)
    changed = ChangedModel(site, folder)
    for step in range(1, VERSIONS + 1):
        await _push(site, engine, changed, step)
    await engine.close()


async def _push(site: Site, engine: VllmEngine, changed: ChangedModel, step: int) -> None:
    asked = EngineRequest(_CONTEXT, max_tokens=_ASKED_TOKENS, seed=step)
    label, manifest, source = changed.next(step)
    before_nats = mismatch_nats(changed.model, _CONTEXT, await engine.generate(asked))
    long = [
        EngineRequest(_CONTEXT, max_tokens=_FLYING_TOKENS[site.device], seed=index)
        for index in range(_FLYING)
    ]
    flying = [asyncio.create_task(engine.generate(request)) for request in long]
    await asyncio.sleep(0.5)  # all are decoding by then
    pause_s = await engine.load_weights(label, manifest, source)
    after = await engine.generate(asked)
    after_nats = mismatch_nats(changed.model, _CONTEXT, after)
    results = await asyncio.gather(*flying)
    swapped = sum(len(result.spans) > 1 for result in results)
    site.figure(
        **{
            f"version_{step}_before_nats": before_nats,
            f"version_{step}_after_nats": after_nats,
            f"version_{step}_pause_s": pause_s,
            f"version_{step}_in_flight": swapped,
        }
    )
    require(swapped > 0, f"no sequence was in flight when version {step} was loaded")
    require({span.version for span in after.spans} == {step}, f"tokens after version {step} name another one")
    require(
        after_nats < WRONG_NATS < before_nats,
        f"version {step}: {before_nats:.3f} nats from its weights before, {after_nats:.3f} after",
    )
