"""A small engine behind the same protocol, for speed, chaos and scale: seeded text, no model, no device.

Its answers are a function of the request alone (context, seed), so a run can be repeated token for token; loading weights only
moves the version label. What it cannot do is learn: its rewards do not follow the weights.
"""

import asyncio
import hashlib
import math
import random

from dynalign.rollout.engine.base import EngineRequest, EngineResult
from dynalign.rollout.records import VersionSpan
from dynalign.rollout.weights.source import Source
from dynalign.rollout.weights.version import Manifest, label_step


class DeterministicEngine:
    """`vocabulary`: token ids to draw from. `token_s`: seconds one token takes, for tests of overlap and of stragglers."""

    def __init__(self, vocabulary: range, eos_id: int, label: str, token_s: float = 0.0) -> None:
        self._vocabulary, self._eos_id, self._token_s = vocabulary, eos_id, token_s
        self._step = label_step(label)

    async def generate(self, request: EngineRequest) -> EngineResult:
        rng = random.Random(
            hashlib.sha256(repr((request.token_ids, request.seed, request.json_schema)).encode()).digest()
        )
        if request.digit_ids is not None:
            weights_6 = [rng.random() + 1e-3 for _ in request.digit_ids]
            logprobs_6 = tuple(math.log(0.9 * weight / sum(weights_6)) for weight in weights_6)
            best = max(range(len(logprobs_6)), key=logprobs_6.__getitem__)
            return EngineResult(
                (request.digit_ids[best],),
                (logprobs_6[best],),
                "length",
                self._spans(1),
                digit_logprobs_6=logprobs_6,
            )
        if request.prefill_from is not None:
            scored_T = tuple(-rng.random() for _ in request.token_ids[request.prefill_from :])
            return EngineResult((), (), "length", (), prefill_logprobs_T=scored_T)
        length = rng.randint(1, request.max_tokens)
        token_ids = [rng.choice(self._vocabulary) for _ in range(length)]
        stopped = length < request.max_tokens
        if stopped:
            token_ids[-1] = self._eos_id
        version = self._step
        await asyncio.sleep(length * self._token_s)
        logprobs_T = tuple(-rng.random() for _ in token_ids)
        spans = (VersionSpan(version, 0, length),)
        return EngineResult(tuple(token_ids), logprobs_T, "stop" if stopped else "length", spans)

    async def load_weights(self, label: str, manifest: bytes, source: Source) -> float:
        Manifest.unpack(manifest)
        self._step = label_step(label)
        return 0.0

    async def sleep(self) -> None:
        """There is no device to free."""

    async def wake(self) -> None:
        """There is no device to take."""

    async def close(self) -> None:
        """There is nothing to end."""

    def _spans(self, length: int) -> tuple[VersionSpan, ...]:
        return (VersionSpan(self._step, 0, length),)
