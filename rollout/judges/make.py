"""From the settings to the judge that they name: where a new judge is registered."""

from dynalign.configs.sections.judge import JudgeSettings
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import Engine
from dynalign.rollout.judges.base import Judge
from dynalign.rollout.judges.expected import ExpectedJudge
from dynalign.rollout.judges.function import FunctionJudge, load_function
from dynalign.rollout.judges.sampled import SampledJudge
from dynalign.rollout.judges.value_texts import ValueTexts


def make_judge(
    engine: Engine, contexts: Contexts, texts: ValueTexts, settings: JudgeSettings, context_limit: int
) -> Judge:
    """The judge of a run.

    engine: which a judge that asks the policy asks. context_limit: tokens that this engine holds per
    sequence.

    Raises UserError when the settings' function cannot be loaded, or the tokenizer lacks single-token
    digits for `expected`."""
    if settings.kind == "function":
        name = settings.function or ""
        return FunctionJudge(load_function(name), name)
    scorer = ExpectedJudge if settings.scorer == "expected" else SampledJudge
    return scorer(engine, contexts, texts, settings, context_limit)
