"""A whole `evaluate pairwise` in a process that may be killed, against a scripted server.

Simulated: the models and the judge, all of them the one model that the server has. Real: the journal.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dynalign.launch.commands.evaluate_opening import Purpose
from dynalign.launch.commands.evaluate_pairwise import PairwiseOptions, evaluate_pairwise
from dynalign.launch.commands.evaluate_subjects import Subject
from dynalign.rollout.judges.respondents import AskedModel
from tests.worlds.asked_endpoint import asked_endpoint
from tests.worlds.evaluated_models import endpoint
from tests.worlds.scripted_endpoint import MODEL

PROMPTS = 10
QUESTIONS = 4 * PROMPTS
"""An answer of each side, and a verdict in each order."""


def evaluate(address: str, folder: Path) -> int:
    """Compares the server's model with a system prompt to itself without one."""

    @asynccontextmanager
    async def opened(subject: Subject, purpose: Purpose) -> AsyncIterator[AskedModel]:
        async with asked_endpoint(address, folder / "answers.sqlite") as asked:
            yield AskedModel(asked.asker(purpose), MODEL)

    file = endpoint(folder, MODEL, address)
    options = PairwiseOptions(
        model=file, against=file, judges=(file,), prompted=True, limit=PROMPTS, out=str(folder)
    )
    return evaluate_pairwise(options, opened)


if __name__ == "__main__":
    sys.exit(evaluate(sys.argv[1], Path(sys.argv[2])))
