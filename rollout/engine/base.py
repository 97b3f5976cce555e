"""What dynalign asks of an inference engine: one request, one result, and new weights between tokens.

`vllm_engine.py` is the engine; `deterministic_engine.py` stands behind the same protocol for speed, chaos and scale.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from dynalign.rollout.records import VersionSpan
from dynalign.rollout.weights.source import Source


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """token_ids: the whole context. Three kinds of request, told apart by their fields:

    generate   max_tokens tokens at temperature 1 with `seed`; with `json_schema` the answer is constrained to it
    verdict    `digit_ids` set: one greedy token among them, returning the raw log-probability of each
    prefill    `prefill_from` set: no generation, log-probabilities of token_ids[prefill_from:]

    fresh: compute the whole context anew instead of reading key-values that an earlier request has cached.

    """

    token_ids: tuple[int, ...]
    max_tokens: int = 1
    seed: int = 0
    digit_ids: tuple[int, ...] | None = None
    json_schema: str | None = None
    prefill_from: int | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class EngineResult:
    """token_ids and logprobs_T of what was generated (raw, temperature 1, natural log), its version spans, and what was asked for:
    digit_logprobs_6 (verdict) or prefill_logprobs_T (prefill)."""

    token_ids: tuple[int, ...]
    logprobs_T: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    spans: tuple[VersionSpan, ...]
    digit_logprobs_6: tuple[float, ...] | None = None
    prefill_logprobs_T: tuple[float, ...] | None = None


class Engine(Protocol):
    """One running engine. A failed call raises EngineError, after which the engine is dead and never used again.

    A prefix is never served from key-values of older weights: the engine salts its prefix cache with the version's label.
    """

    async def generate(self, request: EngineRequest) -> EngineResult: ...

    async def load_weights(self, label: str, manifest: bytes, source: Source) -> float:
        """Swap to the version that `source` brings while sequences are in flight; returns the pause in seconds, from the end of the last
        step under the old weights until the engine may step again.

        Raises TransferFailed when nothing of it came: the engine goes on with the version it has. Any other error leaves the engine
        dead: half of its weights may be new."""
        ...

    async def sleep(self) -> None:
        """Free the device for the learner (a no-op on a CPU)."""
        ...

    async def wake(self) -> None:
        """Take the device back."""
        ...

    async def close(self) -> None: ...
