"""A rollout worker without its actor: the engine, the contexts and the judge as `actors.rollout_worker` puts them together."""

from dataclasses import dataclass

from benchmarks.workload import Workload
from configs.schema import RunSettings
from rollout.contexts import Contexts, load_contexts
from rollout.definition import load_value_texts
from rollout.group_maker import GroupMaker
from rollout.judge import Judge, context_tokens, make_judge
from rollout.vllm_engine import VllmEngine

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
        return RolloutSide(run, engine, contexts, judge, GroupMaker(run, "benchmark", engine, judge, contexts, texts, lambda: 0))
