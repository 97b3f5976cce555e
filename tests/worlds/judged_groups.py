"""Whole groups under any kind of judge. Simulated: the model, by the deterministic engine; judges, by a
script. The group maker is the real one."""

import asyncio
import random
from collections.abc import Sequence

from dynalign.configs.schema import RunSettings
from dynalign.endpoint.base import Question
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.deterministic import DeterministicEngine
from dynalign.rollout.group_maker import GroupMaker, GroupTask
from dynalign.rollout.judges.make import make_judge, make_second_judges
from dynalign.rollout.judges.respondents import Askers
from dynalign.rollout.judges.value_texts import texts_of
from dynalign.rollout.prompts import Prompt
from dynalign.rollout.records import Group
from tests.worlds.scripted_askers import LIMIT, sure

PROMPT = Prompt("p-1", "How can we share a well?", "governance", "train")


def maker(contexts: Contexts, askers: Askers, **judge: object) -> GroupMaker:
    run = RunSettings.model_validate(
        {
            "name": "r", "model": "m", "seed": 5,
            "rollout": {"group_size": 8, "max_completion_tokens": 6, "gap_probes": 0},
            "judge": {"noise_fraction": 0.0} | judge,
        }
    )  # fmt: skip
    texts = texts_of(None, run.judge)
    # It ends with a letter: an empty answer would have a score without a question.
    engine = DeterministicEngine(range(97, 123), 97, "1.4")
    side = (engine, contexts, texts, run.judge, LIMIT, askers)
    judges = make_judge(*side), make_second_judges(*side)
    return GroupMaker(run, "w", engine, judges[0], contexts, texts, lambda: 4, judges[1])


def made(by: GroupMaker, groups: Sequence[int] = (3,)) -> list[Group]:
    async def all_of_them() -> list[Group]:
        return [await by.make(GroupTask(1, group_id, 1, 0, PROMPT, 100.0)) for group_id in groups]

    return asyncio.run(all_of_them())


def a_score(question: Question) -> tuple[float, ...]:
    """A grade that is a function of the answer, so that it is the same in every run."""
    return sure(random.Random(question.messages[0].content).randrange(6))
