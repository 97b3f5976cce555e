"""The four agents by a script: what a model says to a question of theirs is a function of the question.

Simulated: the model. Real: questions, schemas, items, board.
"""

import asyncio
import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dynalign.configs.errors import EndpointError
from dynalign.configs.sections.prompt_making import PromptMakingSettings
from dynalign.dataset.agent_texts import AGENTS, Agent, load_agents
from dynalign.dataset.board import Board
from dynalign.dataset.items import NoRepetition, SetFilter
from dynalign.dataset.making import AgentModel, MakingEnd, make_set
from dynalign.dataset.making_plan import MakingPlan, make_plan
from dynalign.endpoint.base import Answer, Answers, Question

MODEL = "tiny"
WORDS = [
    "bread",
    "goats",
    "ledger",
    "winter",
    "canal",
    "roof",
    "choir",
    "seed",
    "ferry",
    "tariff",
    "glass",
    "orchard",
    "radio",
    "bridge",
]

Said = str | Answer | EndpointError


def number_of(question: Question) -> int:
    """A number that only the question decides."""
    text = f"{question.seed}/{question.messages[-1].content}/{question.json_schema}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def agent_of(question_schema: str) -> str:
    """`goals`, `critic`, or `writer`, which stands for refine, too."""
    names = json.loads(question_schema)["properties"]
    return "goals" if "goal" in names else "critic" if "deductions" in names else "writer"


def words(number: int, count: int) -> str:
    """That many words."""
    generator = random.Random(number)
    return " ".join(generator.choice(WORDS) + str(generator.randrange(1000)) for _ in range(count))


def verdict(schema: str, taken: int = 0, name: str = "", disqualified: str = "", feedback: str = "ok") -> str:
    """The critic's answer, which takes points under one name."""
    properties = json.loads(schema)["properties"]
    names = properties["deductions"]["properties"]
    return json.dumps(
        {
            "deductions": {each: taken if each == name else 0 for each in names},
            "disqualifications": {
                each: each == disqualified for each in properties["disqualifications"]["properties"]
            },
            "difficulty_level": 3,
            "feedback": feedback,
        }
    )


def good(question: Question) -> str:
    """Agents with whom the critic is content."""
    number = number_of(question)
    schema = question.json_schema or "{}"
    match agent_of(schema):
        case "goals":
            return json.dumps({"goal": f"Somebody gets {words(number, 4)} done."})
        case "critic":
            return verdict(schema)
        case _:
            required = json.loads(schema)["required"]
            return json.dumps({name: f"How do I do it? {name} {words(number, 12)}" for name in required})


def mixed(question: Question) -> Said:
    """Agents of every kind: good, weak, broken; some use own words, some repeat themselves."""
    number = number_of(question)
    kind = number % 23
    schema = question.json_schema or "{}"
    if kind == 0:
        return '{"goal": "it has no end'
    if kind == 1:
        return Answer('{"prompt": "it is cut', "length")
    if kind == 2:
        return Answer("", "refused")
    if agent_of(schema) == "critic":
        if kind == 3:
            return verdict(schema, disqualified="unsafe")
        return verdict(schema, 40, "realistic", feedback="Be concrete.") if kind < 9 else verdict(schema)
    if agent_of(schema) == "writer":
        if kind == 3:
            return json.dumps({"prompt": f"How does Collective  Agency grow? {words(number, 9)}"})
        if kind == 4:
            return json.dumps({"prompt": "How do I mend this net?"})
        if kind in (5, 6):
            return json.dumps({"prompt": f"How do I mend a net that has a hole as large as {number % 3}?"})
    return good(question)


@dataclass
class AgentsAsker:
    """Answers as `says` does, after a pause, and counts the questions."""

    says: Callable[[Question], Said]
    pause_s: Callable[[], float] = lambda: 0.0
    asked: list[Question] = field(default_factory=list)

    async def ask(self, question: Question) -> Answers:
        self.asked.append(question)
        await asyncio.sleep(self.pause_s())
        said = self.says(question)
        if isinstance(said, EndpointError):
            raise said
        answer = Answer(said, "stop") if isinstance(said, str) else said
        return Answers((answer,), question.model, 100, 10)


MODELS: Mapping[Agent, str] = dict.fromkeys(AGENTS, MODEL)


def plan_of(**settings: object) -> MakingPlan:
    """The plan of a set on the shipped texts."""
    return make_plan(PromptMakingSettings.model_validate(settings), MODELS)


def made(
    plan: MakingPlan,
    says: Callable[[Question], Said],
    at_once: int = 16,
    pause_s: Callable[[], float] = lambda: 0.0,
    set_filter: SetFilter | None = None,
) -> tuple[Board, MakingEnd, AgentsAsker]:
    """A set, made to its end."""
    board = Board(plan, set_filter or NoRepetition())
    asker = AgentsAsker(says, pause_s)

    async def run() -> MakingEnd:
        models: dict[Agent, AgentModel] = {agent: AgentModel(asker, MODEL) for agent in AGENTS}
        return await make_set(board, models, at_once, asyncio.Event())

    return board, asyncio.run(run()), asker


def own_agents(folder: Path, kind: str = "task", **changed: str) -> Path:
    """The shipped agents as a user's folder, some files changed. changed: `goals_txt` → text."""
    folder.mkdir(parents=True, exist_ok=True)
    for agent, text in load_agents(None, kind).of.items():
        (folder / f"{agent}.txt").write_text(changed.get(f"{agent}_txt", text.template))
        (folder / f"{agent}.json").write_text(changed.get(f"{agent}_json", text.json_schema))
    return folder
