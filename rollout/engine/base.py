"""What dynalign asks of an inference engine: one request, one result, and new weights between tokens.

`vllm.py` is the engine; `deterministic.py` stands behind the same protocol for tests of speed, faults and
scale.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal, Protocol

from dynalign.rollout.records import VersionSpan
from dynalign.rollout.weights.source import Source

TEMPERATURE = 1.0
"""Of everything that is trained on, with top-p 1 and top-k off.

Not a setting: sampling from a truncated or sharpened distribution would bias the importance ratio."""

MOST_CHOICES = 128
"""Choices of one verdict: vLLM reports the log-probabilities of no more tokens at one time."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One request to an engine. Its fields decide which of three kinds it is:

        generate   neither `choice_ids` nor `prefill_from`: samples up to `max_tokens` tokens
        verdict    `choice_ids`: one greedy token among them, with the raw log-probability of each
        prefill    `prefill_from`: generates nothing, returns log-probabilities of the context's last tokens

    Example, a candidate that is sampled, and a judge's question about it:

        EngineRequest((1, 9906, 30, 2), max_tokens=256, seed=1841260311)
        EngineRequest((1, 5519, 220, 2), choice_ids=(15, 16, 17, 18, 19, 20))
    """

    token_ids: tuple[int, ...]
    """The whole context, as token ids of the policy's tokenizer."""
    max_tokens: int = 1
    """Most tokens to generate, the end-of-turn token included."""
    seed: int = 0
    """Seed of the sampling, 31 bits; see `request_seed`."""
    choice_ids: tuple[int, ...] | None = None
    """Token ids of the choices, such as the six digits "0" to "5", MOST_CHOICES at most: makes this a
    verdict."""
    json_schema: str | None = None
    """JSON schema that a generated answer is constrained to; None: unconstrained."""
    prefill_from: int | None = None
    """Index into `token_ids` of the first token whose log-probability is wanted: makes this a prefill."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end a sequence, besides those that the model's files name."""
    temperature: float = TEMPERATURE
    """Of the sampling; 0: the most likely token each time. Whatever is trained on keeps the default. Only
    `rollout/engine_asker.py` sets another one, for questions whose answers are no training samples."""
    fresh: bool = False
    """Compute the whole context anew instead of reading key-values that an earlier request has cached."""
    initial: bool = False
    """Answer as the initial policy. Only an engine whose versions are adapters can do that: it leaves the
    adapter out."""


@dataclass(frozen=True, slots=True)
class EngineResult:
    """What an engine returns for one `EngineRequest`. Log-probabilities are natural logs, at temperature 1.

    Example, three tokens of which the last was sampled under version 7, after a weight swap:

        EngineResult((9906, 11, 2), (-0.2, -1.4, -0.1), "stop", (VersionSpan(6, 0, 2), VersionSpan(7, 2, 3)))
    """

    token_ids: tuple[int, ...]
    """What was generated, with the end-of-turn token if the sequence ended by itself; not of a prefill."""
    logprobs_T: tuple[float, ...]
    """Log-probability in nats of each generated token when it was sampled."""
    finish_reason: Literal["stop", "length"]
    """`stop`: the sequence ended by itself. `length`: it reached `max_tokens`."""
    spans: tuple[VersionSpan, ...]
    """The policy version of every generated token."""
    choice_logprobs: tuple[float, ...] | None = None
    """Verdict only: log-probability in nats of each of `choice_ids`, over the whole vocabulary."""
    prefill_logprobs_T: tuple[float, ...] | None = None
    """Prefill only: log-probability in nats of each token of `token_ids[prefill_from:]` of the request."""


class EngineSettings(Protocol):
    """What an engine is built by, whatever its weights are for: the sections `rollout` and `judge.pool`."""

    @property
    def dtype(self) -> Literal["bfloat16", "float32"]: ...

    @property
    def tensor_parallel(self) -> int: ...

    @property
    def kv_cache_gib(self) -> float: ...

    @property
    def block_size(self) -> int: ...

    @property
    def max_sequences(self) -> int: ...

    @property
    def eager(self) -> bool: ...


class Engine(Protocol):
    """One running engine. A failed call raises EngineError; unless that is a RequestRefused, the engine is
    dead then and never used again.

    A prefix is never served from key-values of older weights: the engine salts its prefix cache with the
    version's label.
    """

    async def generate(self, request: EngineRequest) -> EngineResult:
        """The result of one request.

        Raises RequestRefused when the engine cannot take it, EngineError when the engine fails, and
        DeadlineExceeded when it does not answer."""
        ...

    async def load_weights(self, label: str, manifest: bytes, source: Source) -> float:
        """Loads a version while sequences are in flight, which go on under it; returns the pause in seconds.

        label: the version's name, `<lineage>.<step>`. manifest: the packed `Manifest`. source: where the
        bytes are. The pause lasts from the end of the last step under the old weights until the engine may
        step again.

        Raises TransferFailed when none of the version's bytes arrived: the engine goes on with the version
        it has. Any other error leaves the engine dead, since half of its weights may be new."""
        ...

    async def sleep(self) -> None:
        """Free the device for the learner (a no-op on a CPU)."""
        ...

    async def wake(self) -> None:
        """Take the device back."""
        ...

    async def close(self) -> None:
        """End the engine and its processes."""
        ...


def request_seed(run_seed: int, *what: int | str) -> int:
    """The seed of one request: 31 bits of a hash of the run's seed and of what is asked.

    So a request repeats its randomness after a restart, and no two requests share it."""
    digest = hashlib.sha256(repr((run_seed, *what)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
