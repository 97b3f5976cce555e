"""What a judge is: the `Judge` protocol, and what the judges that ask the policy share.

expected.py   one constrained token per candidate and rubric; score = Σ k·q(k)
sampled.py    a short rationale and an integer in a JSON answer; the mean of `samples` of them
function.py   a Python callable (verifiable rewards)
make.py       the judge that the settings name
"""

from collections.abc import Sequence
from typing import Protocol

from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import Engine
from dynalign.rollout.judges.value_texts import ValueTexts, judge_user_message
from dynalign.rollout.records import Verdict


class Judge(Protocol):
    """Scores all candidates of one prompt under one policy version."""

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        """One verdict per candidate text, in their order.

        seed: of whatever the judge samples; equal calls give equal requests. fresh: compute every context
        anew instead of reading cached key-values, so that a second score shows the numerical noise of the
        first.

        An answer that cannot be read is a verdict `unparsed`, never an error. Raises EngineError when the
        engine that is asked fails."""
        ...


class PolicyJudge:
    """The base of the judges that ask the policy: their contexts, and the verdicts that need no question."""

    def __init__(
        self,
        engine: Engine,
        contexts: Contexts,
        texts: ValueTexts,
        settings: JudgeSettings,
        context_limit: int,
    ) -> None:
        """context_limit: tokens that the engine holds per sequence, the judge's own answer included."""
        self._engine = engine
        self._contexts = contexts
        self._texts = texts
        self._settings = settings
        self._context_limit = context_limit - answer_tokens(settings)

    def _contexts_of(self, prompt: str, text: str) -> dict[str, tuple[int, ...]]:
        """One judge context per rubric, as token ids by the rubric's name."""
        messages = {name: judge_user_message(self._texts, name, prompt, text) for name in self._texts.rubrics}
        prefill = self._texts.judge_prefill
        return {name: self._contexts.judge_context(message, prefill) for name, message in messages.items()}

    def _without_asking(self, text: str, contexts: dict[str, tuple[int, ...]]) -> Verdict | None:
        """The verdict of a candidate that is empty, or too long for the judge; None for all others."""
        if not text.strip():
            return Verdict(0.0, "empty")
        longest = max(map(len, contexts.values()))
        if longest > self._context_limit:
            cause = f"the judge's context has {longest} tokens, the engine takes {self._context_limit}"
            return Verdict(None, "unparsed", text=cause)
        return None


def answer_tokens(settings: JudgeSettings) -> int:
    """Tokens that the judge's own answer may take."""
    return 1 if settings.scorer == "expected" else settings.max_rationale_tokens


def context_tokens(contexts: Contexts, texts: ValueTexts, run: RunSettings) -> int:
    """The longest context in tokens, answer included, that an engine of this run has to hold.

    A candidate's text is encoded anew for the judge and can take more tokens than were sampled: twice as
    many are allowed for.
    """
    sampled = run.prompts.max_tokens + run.rollout.max_completion_tokens
    if run.judge.kind == "function":
        return sampled
    messages = (judge_user_message(texts, name, "", "") for name in texts.rubrics)
    frame = max(len(contexts.judge_context(message, texts.judge_prefill)) for message in messages)
    return frame + run.prompts.max_tokens + 2 * run.rollout.max_completion_tokens + answer_tokens(run.judge)
