"""What the policy writes on held-out prompts: the candidates whose scores would train it."""

import asyncio
from collections.abc import Sequence

from dynalign.configs.schema import RunSettings
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import Engine, EngineRequest, request_seed
from dynalign.rollout.prompts import Prompt


async def sample_candidates(
    engine: Engine, contexts: Contexts, run: RunSettings, prompts: Sequence[Prompt]
) -> dict[str, list[str]]:
    """Prompt id → `rollout.group_size` answers, sampled with the system prompt as in training.

    Raises EngineError when the engine fails."""

    async def answer(prompt: Prompt, number: int) -> str:
        request = EngineRequest(
            contexts.sampling_context(prompt.prompt),
            max_tokens=run.rollout.max_completion_tokens,
            seed=request_seed(run.seed, "judge check candidate", prompt.id, number),
            stop_ids=contexts.stop_ids,
        )
        return contexts.answer((await engine.generate(request)).token_ids)

    size = run.rollout.group_size
    texts = await asyncio.gather(*(answer(prompt, number) for prompt in prompts for number in range(size)))
    return {prompt.id: texts[place * size : (place + 1) * size] for place, prompt in enumerate(prompts)}
