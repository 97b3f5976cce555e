"""A rollout worker without its actor: the engine, the contexts and the judge as
`dynalign.actors.worker.rollout_worker` puts them together.
"""

from dataclasses import dataclass

from dynalign.benchmarks.workload import Workload
from dynalign.configs.schema import RunSettings
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.rollout.engine.vllm import VllmEngine
from dynalign.rollout.group_maker import GroupMaker
from dynalign.rollout.judges.base import Judge, context_tokens
from dynalign.rollout.judges.make import make_judge
from dynalign.rollout.judges.value_texts import load_value_texts

LABEL = "1.0"


@dataclass(frozen=True)
class RolloutSide:
    run: RunSettings
    engine: VllmEngine
    contexts: Contexts
    judge: Judge
    maker: GroupMaker

    @staticmethod
    async def start(workload: Workload, *overrides: str) -> "RolloutSide":
        """On the event loop that will use it."""
        run = workload.settings(*overrides)
        texts = load_value_texts(None, run.judge.rubric, run.judge.scorer)
        contexts = load_contexts(workload.model_folder, texts.generation_system, run.date or "")
        limit = context_tokens(contexts, texts, run)
        engine = await VllmEngine.start(str(workload.model_folder), run.rollout, limit, LABEL, run.seed)
        judge = make_judge(engine, contexts, texts, run.judge, limit)
        return RolloutSide(
            run,
            engine,
            contexts,
            judge,
            GroupMaker(run, "benchmark", engine, judge, contexts, texts, lambda: 0),
        )
