"""Opens one model of an evaluation after the other, so that never two are in memory."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dynalign.configs.sections.pool import PoolSettings
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

    @asynccontextmanager
    async def __call__(self, subject: Subject, purpose: Purpose) -> AsyncIterator[AskedModel]:
        """The model, open. Raises UserError for one that cannot be asked, RunFailed where no engine
        starts."""
        from dynalign.launch.offline_askers import open_askers

        name = "model"
        endpoints = {} if subject.endpoint is None else {name: subject.endpoint}
        local = {}
        if subject.folder is not None:
            local = {name: self.engine.model_copy(update={"model": str(subject.folder)})}
        async with (
            open_askers(endpoints, self.journal, purpose, local=local, place=subject.name) as opened,
            opened.live(),
        ):
            yield opened.askers[name]
