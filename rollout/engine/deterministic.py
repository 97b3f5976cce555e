"""An engine without a model, for tests of speed, faults and scale.

Its answers are a function of the request alone (context and seed), so that a run can be repeated token for
token. Loading weights only changes the version's label: its rewards do not follow the weights, and it
cannot learn.
"""

import asyncio
import hashlib
import math
import random

from dynalign.rollout.engine.base import EngineRequest, EngineResult
from dynalign.rollout.records import VersionSpan
from dynalign.rollout.weights.source import Source
from dynalign.rollout.weights.version import Manifest, label_lineage, label_step


class DeterministicEngine:
    """An `Engine` whose text is random but repeats with the request."""

    def __init__(self, vocabulary: range, eos_id: int, label: str, token_s: float = 0.0) -> None:
        """vocabulary: token ids to draw from. label: the first version's name. token_s: seconds per token.

        The last is for tests of overlap and of stragglers."""
        self._vocabulary = vocabulary
        self._eos_id = eos_id
        self._token_s = token_s
        self._label = label

    async def generate(self, request: EngineRequest) -> EngineResult:
        asked = repr((request.token_ids, request.seed, request.json_schema))
        rng = random.Random(hashlib.sha256(asked.encode()).digest())
        if request.choice_ids is not None:
            weights = [rng.random() + 1e-3 for _ in request.choice_ids]
            logprobs = tuple(math.log(0.9 * weight / sum(weights)) for weight in weights)
            best = max(range(len(logprobs)), key=logprobs.__getitem__)
            token_ids = (request.choice_ids[best],)
            chosen = (logprobs[best],)
            return EngineResult(token_ids, chosen, "length", (_span(self._label, 1),), logprobs)
        if request.prefill_from is not None:
            scored_T = tuple(-rng.random() for _ in request.token_ids[request.prefill_from :])
            return EngineResult((), (), "length", (), prefill_logprobs_T=scored_T)
        length = rng.randint(1, request.max_tokens)
        sampled = [rng.choice(self._vocabulary) for _ in range(length)]
        stopped = length < request.max_tokens
        if stopped:
            sampled[-1] = self._eos_id
        label = self._label
        await asyncio.sleep(length * self._token_s)
        logprobs_T = tuple(-rng.random() for _ in sampled)
        spans = (_span(label, length),)
        return EngineResult(tuple(sampled), logprobs_T, "stop" if stopped else "length", spans)

    async def load_weights(self, label: str, manifest: bytes, source: Source) -> float:
        Manifest.unpack(manifest)
        self._label = label
        return 0.0

    async def sleep(self) -> None:
        """There is no device to free."""

    async def wake(self) -> None:
        """There is no device to take."""

    async def close(self) -> None:
        """There is nothing to end."""


def _span(label: str, tokens: int) -> VersionSpan:
    return VersionSpan(label_step(label), 0, tokens, label_lineage(label))
