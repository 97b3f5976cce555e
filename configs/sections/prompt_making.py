"""The settings of `dynalign prompts make`: who writes prompts, from what, and what is let through."""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Fraction, NotNegative, Positive, Section
from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.configs.sections.pool import PoolSettings


class AgentSettings(Section):
    """One agent: whom it asks, and how.

    Example: `{temperature: 1.0, max_tokens: 512, endpoint: {address: "http://big:8000/v1", model: big}}`.
    """

    endpoint: EndpointSettings | None = None
    """The model of this agent; null: that of the settings `endpoint` or `pool`."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """Of its sampling. At 0 an unreadable answer is not mended by asking again."""
    max_tokens: Annotated[int, Field(ge=16, le=32_768)] = 700
    """Most tokens of one answer, a model's reasoning included."""


class ValueSettings(Section):
    """The value for which prompts are made: `{values: my-value}`."""

    values: str | None = None
    """Folder with a value definition of your own, as in the settings of a run; null: Collective Agency."""


class PromptMakingSettings(Section):
    """A set of prompts that writes itself.

    Example: `{count: 1000, seed: 7, endpoint: {address: "http://big:8000/v1", model: big}}`.
    """

    count: Positive = 1000
    """Prompts wanted. A larger count goes on with a set that is there."""
    kind: Literal["task", "dilemma"] = "task"
    """`task`: what a person asks for. `dilemma`: a conflict of two personas, in three severities."""
    seed: NotNegative = 0
    """Of the cells, of every question and of the split."""
    endpoint: EndpointSettings | None = None
    """The model of every agent that names no other."""
    pool: PoolSettings | None = None
    """Engines of our own that answer instead of `endpoint`; `--local MODEL` sets `pool.model`."""
    goals: AgentSettings = AgentSettings(max_tokens=300)
    """Says what advancing the value could mean for somebody in a cell."""
    writer: AgentSettings = AgentSettings()
    """Writes the prompt that such a person would bring."""
    critic: AgentSettings = AgentSettings(temperature=0.2)
    """Takes points from a prompt, or disqualifies it."""
    refine: AgentSettings = AgentSettings()
    """Writes a prompt again with what the critic has said."""
    judge: ValueSettings = ValueSettings()
    """Whose value, under the name that it has in the settings of a run."""
    agents: str | None = None
    """Folder with texts and schemas of the agents; null: those shipped with dynalign."""
    taxonomy: str | None = None
    """YAML file with the axes of the cells; null: the one shipped with dynalign."""
    steered: bool = True
    """Whether agents are told the cell. False shows what they write by themselves, to compare with."""
    prompts_per_goal: Annotated[int, Field(ge=1, le=100)] = 1
    """Places that share a goal, and so a cell. All prompts of a goal are in one split."""
    rounds: Annotated[int, Field(ge=0, le=10)] = 2
    """Most refinements of a prompt."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 4
    """Most items at one place. After the last one the place stays empty."""
    tries: Annotated[int, Field(ge=1, le=10)] = 3
    """How often a question is asked, each time with another seed, until its answer can be read."""
    threshold: Annotated[int, Field(ge=0, le=100)] = 75
    """Least score of a prompt that is accepted, of 100 points."""
    min_characters: Annotated[int, Field(ge=1, le=100_000)] = 40
    """Shortest prompt that is accepted."""
    max_characters: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    """Longest prompt that is accepted."""
    heldout_share: Fraction = 0.1
    """Share of the goals whose prompts are only evaluated, never trained on."""
    similarity: Annotated[float, Field(gt=0.0, le=1.0)] = 0.6
    """Jaccard similarity of word 5-grams from which on a text repeats another one."""
    earlier: tuple[str, ...] = ()
    """Sets that must not be repeated: folders or files as in `prompts.source`."""
