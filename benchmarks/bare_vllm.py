"""The same engine without dynalign around it: vLLM's own calls on the `AsyncLLM` inside a `VllmEngine`.

One engine process serves both sides of a comparison, so that neither has another memory layout, another core
or a colder cache.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynalign.rollout.engine.base import EngineRequest
from dynalign.rollout.engine.vllm import VllmEngine
from dynalign.rollout.engine.vllm_requests import RequestOutputKind, SamplingParams

_numbers = itertools.count()
_RELOAD_DEADLINE_S = 120.0


async def forget_prefixes(engine: VllmEngine) -> None:
    """Empties the prefix cache of an idle engine: what every new weight version meets."""
    if not await engine._llm.reset_prefix_cache():
        raise RuntimeError("the prefix cache was not emptied: requests were still running")


async def generate(engine: VllmEngine, requests: Sequence[EngineRequest]) -> int:
    """Answers all requests at once with the sampling parameters that `VllmEngine` gives them; returns the
    tokens generated.
    """

    async def answer(request: EngineRequest) -> int:
        params = SamplingParams(
            temperature=1.0,
            max_tokens=request.max_tokens,
            seed=request.seed,
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt: Any = {"prompt_token_ids": list(request.token_ids)}
        outputs = [output async for output in engine._llm.generate(prompt, params, f"bare-{next(_numbers)}")]
        return len(outputs[-1].outputs[0].token_ids)

    return sum(await asyncio.gather(*map(answer, requests)))


async def reload(engine: VllmEngine, folder: Path) -> float:
    """Seconds in which an idle engine loads the safetensors in `folder` by its own `reload_weights`."""
    started_s = time.monotonic()
    await engine._llm.collective_rpc(
        "reload_weights", timeout=_RELOAD_DEADLINE_S, kwargs={"weights_path": str(folder)}
    )
    return time.monotonic() - started_s
