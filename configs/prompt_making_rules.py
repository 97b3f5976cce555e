"""Rules between the settings of `dynalign prompts make`."""

from dynalign.configs.errors import Mistake
from dynalign.configs.sections.prompt_making import PromptMakingSettings

AGENTS = ("goals", "writer", "critic", "refine")


def prompt_making_mistakes(settings: PromptMakingSettings) -> list[Mistake]:
    """Every rule that the settings break."""
    found = []
    if settings.min_characters > settings.max_characters:
        rule = f"is above max_characters, which is {settings.max_characters:,}"
        remedy = "lower it, or raise max_characters"
        found.append(Mistake("min_characters", settings.min_characters, rule, remedy))
    if settings.endpoint is not None and settings.pool is not None:
        rule = "names a model, and so does endpoint: nobody knows whom an agent asks"
        remedy = "leave out --local and pool, or leave out endpoint; an agent may have an endpoint of its own"
        found.append(Mistake("pool", None, rule, remedy))
    if settings.pool is not None and settings.pool.model is None:
        found.append(Mistake("pool.model", None, "is missing", "set it, or give --local MODEL"))
    lost = [agent for agent in AGENTS if vars(settings)[agent].endpoint is None]
    if settings.endpoint is None and settings.pool is None and lost:
        rule = f"is missing: the agents {', '.join(lost)} have no model to ask"
        remedy = "set endpoint.address=http://host:8000/v1 and endpoint.model=NAME, or give --local MODEL"
        found.append(Mistake("endpoint", None, rule, remedy))
    return found
