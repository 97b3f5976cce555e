"""Questions to an engine whose weights change: the answers, and the versions that sampled them."""

from dynalign.configs.errors import EndpointRefused
from dynalign.endpoint.base import Answers, Question
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import EngineRequest, EngineResult
from dynalign.rollout.engine_asker import EngineAsker, Generating


class VersionedAsker:
    """Asks the policy of a rollout worker, without the system prompt."""

    def __init__(self, engine: Generating, contexts: Contexts, context_limit: int) -> None:
        """context_limit: tokens that the engine holds per sequence, the answer included."""
        self._engine = engine
        self._contexts = contexts
        self._context_limit = context_limit

    async def ask(self, question: Question, held: int) -> tuple[Answers | None, tuple[int, int]]:
        """The answers, and the oldest and newest version, in steps, of their tokens.

        held: the step of the version in the engine now, which is reported where nothing was sampled. None for
        a question that the engine cannot take. Raises what `EngineAsker.ask` raises besides that."""
        watched = _Watched(self._engine)
        try:
            asker = EngineAsker(question.model, watched, self._contexts, self._context_limit)
            answers = await asker.ask(question)
        except EndpointRefused:
            return None, (held, held)
        versions = watched.versions or {held}
        return answers, (min(versions), max(versions))


class _Watched:
    """An engine whose answers tell their versions."""

    def __init__(self, engine: Generating) -> None:
        self._engine = engine
        self.versions: set[int] = set()

    async def generate(self, request: EngineRequest) -> EngineResult:
        result = await self._engine.generate(request)
        self.versions |= {span.version for span in result.spans}
        return result
