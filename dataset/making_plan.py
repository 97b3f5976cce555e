"""All that the items of a set have in common: settings, cells, texts. Nothing in it depends on an answer."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from dynalign.configs.sections.prompt_making import AgentSettings, PromptMakingSettings
from dynalign.configs.user_paths import user_path
from dynalign.dataset.agent_texts import Agent, AgentTexts, load_agents
from dynalign.dataset.items import AXES, Cell, ItemKey, PromptItem
from dynalign.dataset.taxonomy import Taxonomy, even_cells, load_taxonomy
from dynalign.endpoint.base import Message, Question
from dynalign.rollout.judges.value_texts import ValueDefinition, as_data, load_definition

SEEDS = 2**31
"""A seed is smaller than this."""
ANYWHERE = "Anybody, anywhere, about anything."
"""The cell that agents are told when they are not steered."""
_AXIS_WORDS = dict(zip(AXES, ("Part of life", "Situation", "Person", "Region", "Stakes"), strict=True))


@dataclass(frozen=True)
class MakingPlan:
    """What a set is made from.

    Example: `MakingPlan(settings, taxonomy, cells, agents, value, {"writer": "gpt-oss-20b", …})`.
    """

    settings: PromptMakingSettings
    """The settings."""
    taxonomy: Taxonomy
    """The axes."""
    cells: tuple[Cell, ...]
    """Index of a goal → its cell."""
    agents: AgentTexts
    """Their messages and schemas."""
    value: ValueDefinition
    """Whose prompts they are."""
    models: Mapping[Agent, str]
    """Agent → the name under which its model is served."""

    def goal_index(self, place: int) -> int:
        """The goal of a place: neighbouring places share one, as many as `prompts_per_goal`."""
        return place // self.settings.prompts_per_goal

    def begun(self, key: ItemKey) -> PromptItem:
        """The item of a key, to which nothing has been asked yet."""
        cell = self.cells[self.goal_index(key.place)]
        parts = [
            self.settings.seed,
            cell.domain,
            cell.situation,
            cell.stakeholder,
            cell.region,
            cell.severity,
        ]
        return PromptItem(key, cell, seed_of("item", *parts, *key))

    def agent(self, agent: Agent) -> AgentSettings:
        """The settings of an agent."""
        settings = self.settings
        of: dict[Agent, AgentSettings] = {
            "goals": settings.goals,
            "writer": settings.writer,
            "critic": settings.critic,
            "refine": settings.refine,
        }
        return of[agent]

    def question(self, agent: Agent, item: PromptItem, feedback: str = "") -> Question:
        """What an agent is asked about an item. Equal for all places of a goal as long as there is no goal,
        so that it is asked once."""
        values = {
            "definition": self.value.text,
            "own_words": ", ".join(self.value.own_words),
            "cell": self.told_cell(item.cell),
            "goal": as_data(item.goal),
            "prompt": as_data(shown(item.prompt, item.extras)),
            "feedback": as_data(feedback),
        }
        text = self.agents.of[agent]
        settings = self.agent(agent)
        if agent == "goals":
            seed = seed_of(
                "goal", self.settings.seed, self.goal_index(item.key.place), item.key.attempt, item.tries
            )
        else:
            seed = seed_of(agent, item.seed, len(item.rounds), item.tries)
        return Question(
            self.models[agent],
            (Message("user", text.message(values)),),
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            seed=seed,
            json_schema=text.json_schema,
        )

    def told_cell(self, cell: Cell) -> str:
        """A cell as agents read it, a line for each axis."""
        if not self.settings.steered:
            return ANYWHERE
        values = {axis: str(value) for axis, value in zip(AXES, _values(cell), strict=True)}
        return "\n".join(f"{_AXIS_WORDS[axis]}: {value}" for axis, value in values.items() if value)


def _values(cell: Cell) -> tuple[str, ...]:
    return cell.domain, cell.situation, cell.stakeholder, cell.region, cell.severity


def shown(prompt: str, extras: Mapping[str, str]) -> str:
    """A prompt with its further fields, as agents read it."""
    more = [f"{name.replace('_', ' ')}: {text}" for name, text in extras.items()]
    return "\n\n".join([prompt, *more])


def seed_of(*parts: object) -> int:
    """31 bits of SHA-256 over the parts."""
    text = json.dumps([str(part) for part in parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % SEEDS


def make_plan(settings: PromptMakingSettings, models: Mapping[Agent, str]) -> MakingPlan:
    """Reads what a set is made from. models: agent → the name of its model. Raises UserError."""
    folder = settings.judge.values
    value = load_definition(None if folder is None else user_path("judge.values", folder))
    agents = load_agents(settings.agents, settings.kind)
    taxonomy = load_taxonomy(settings.taxonomy, settings.kind)
    goals = -(-settings.count // settings.prompts_per_goal)
    cells = even_cells(taxonomy, goals, settings.seed)
    return MakingPlan(settings, taxonomy, tuple(cells), agents, value, models)
