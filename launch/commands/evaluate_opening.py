"""Opens one model of an evaluation after the other, so that never two are in memory."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.sections.pool import PoolSettings
from dynalign.endpoint.preflight import Need
from dynalign.launch.commands.evaluate_subjects import Subject
from dynalign.rollout.judges.respondents import AskedModel

Purpose = Literal["evaluation", "judge"]
OpenSubject = Callable[[Subject, Purpose], AbstractAsyncContextManager[AskedModel]]
"""How a model is opened; tests bring their own."""


@dataclass(frozen=True)
class Opener:
    """Opens models, on our own engines or at endpoints: `Opener(Path("a.sqlite"), PoolSettings())`."""

    journal: Path
    """The file of answers; what it holds is not asked again."""
    engine: PoolSettings
    """How our own engines are built."""
    questions: int | None = None
    """How many each model is asked, for the live line; None: not known beforehand."""

    async def examine(self, tested: Sequence[Subject], judges: Sequence[Subject], grades: bool) -> None:
        """Asks every endpoint a few small questions, and looks at every folder, before anything is started.

        grades: whether the judges' log-probabilities are needed. Raises UserError with all mistakes."""
        from dynalign.launch.local_model import local_model
        from dynalign.launch.offline_askers import open_askers

        mistakes: list[Mistake] = []
        named = {each.content: each for each in (*tested, *judges)}
        for each in named.values():
            if each.folder is not None:
                try:
                    local_model(each.name, self._engine_of(each.folder))
                except UserError as error:
                    mistakes += error.mistakes
        asked: dict[str, Subject] = {}
        for each in named.values():
            asked[each.name if each.name not in asked else f"{each.name} ({len(asked) + 1})"] = each
        endpoints = {name: each.endpoint for name, each in asked.items() if each.endpoint is not None}
        judging = {judge.content for judge in judges}
        needs: dict[str, tuple[Need, ...]] = {
            name: ("logprobs",) for name, each in asked.items() if grades and each.content in judging
        }
        try:
            async with open_askers(endpoints, self.journal, "evaluation", place="model", needs=needs):
                pass
        except UserError as error:
            mistakes += error.mistakes
        if mistakes:
            raise UserError(mistakes)

    def _engine_of(self, folder: Path) -> PoolSettings:
        return self.engine.model_copy(update={"model": str(folder)})

    @asynccontextmanager
    async def __call__(self, subject: Subject, purpose: Purpose) -> AsyncIterator[AskedModel]:
        """The model, open. Raises UserError for one that cannot be asked, RunFailed where no engine
        starts."""
        from dynalign.launch.offline_askers import open_askers

        name = "model"
        endpoints = {} if subject.endpoint is None else {name: subject.endpoint}
        local = {} if subject.folder is None else {name: self._engine_of(subject.folder)}
        async with (
            open_askers(endpoints, self.journal, purpose, local=local, place=subject.name) as opened,
            opened.live(self.questions),
        ):
            yield opened.askers[name]
