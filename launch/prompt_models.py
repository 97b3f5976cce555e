"""Whom the agents of `dynalign prompts make` ask: each its own endpoint, or the one that all share."""

from collections.abc import Mapping
from dataclasses import dataclass

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.configs.sections.pool import PoolSettings
from dynalign.configs.sections.prompt_making import PromptMakingSettings
from dynalign.dataset.agent_texts import AGENTS, Agent
from dynalign.dataset.items import ItemKey
from dynalign.dataset.making_plan import MakingPlan
from dynalign.endpoint.budget import Amount, fits, most, wall_of
from dynalign.launch.local_model import local_model

SHARED = "endpoint"
LOCAL = "pool"


@dataclass(frozen=True)
class AgentEndpoints:
    """Who is asked, by name, and by which agent.

    Example: `AgentEndpoints({"endpoint": settings}, {}, {"goals": "endpoint", …}, {…}, {…})`.
    """

    endpoints: Mapping[str, EndpointSettings]
    """Name, which is where the settings are → an endpoint."""
    local: Mapping[str, PoolSettings]
    """Name → engines of our own."""
    name_of: Mapping[Agent, str]
    """Agent → the name of whom it asks."""
    address_of: Mapping[Agent, str]
    """Agent → where that is; for engines of our own the content of the model."""
    model_of: Mapping[Agent, str]
    """Agent → the name under which the model is served."""

    @property
    def concurrency(self) -> int:
        """Questions that all endpoints together take at once."""
        pools = [each.engines * each.max_sequences for each in self.local.values()]
        return sum(each.concurrency for each in self.endpoints.values()) + sum(pools)


def agent_endpoints(settings: PromptMakingSettings) -> AgentEndpoints:
    """Whom the agents ask. Agents with equal endpoints share one.

    Raises UserError where two give one model at one address different settings, or the local model cannot be
    used."""
    own = {agent: vars(settings)[agent].endpoint for agent in AGENTS}
    endpoints: dict[str, EndpointSettings] = {}
    name_of: dict[Agent, str] = {}
    mistakes = []
    if settings.endpoint is not None and not all(own.values()):
        endpoints[SHARED] = settings.endpoint
    for agent, endpoint in own.items():
        if endpoint is None:
            name_of[agent] = LOCAL if settings.endpoint is None else SHARED
            continue
        twin = next((name for name, each in endpoints.items() if _is_same(each, endpoint)), None)
        if twin is not None and endpoints[twin] != endpoint:
            rule = f"is the model and address of {twin}, with other settings, and they share one budget"
            remedy = f"give it the settings of {twin}, or leave it out"
            mistakes.append(Mistake(f"{agent}.endpoint", endpoint.model, rule, remedy))
        name_of[agent] = twin or f"{agent}.endpoint"
        endpoints.setdefault(name_of[agent], endpoint)
    if mistakes:
        raise UserError(mistakes)
    local = {LOCAL: settings.pool} if settings.pool is not None and LOCAL in name_of.values() else {}
    models = {name: local_model(name, pool) for name, pool in local.items()}
    address = {name: each.address.rstrip("/") for name, each in endpoints.items()}
    model = {name: each.model for name, each in endpoints.items()}
    address |= {name: each.address for name, each in models.items()}
    model |= {name: each.name for name, each in models.items()}
    return AgentEndpoints(
        endpoints,
        local,
        name_of,
        {agent: address[name] for agent, name in name_of.items()},
        {agent: model[name] for agent, name in name_of.items()},
    )


def _is_same(one: EndpointSettings, other: EndpointSettings) -> bool:
    return one.model == other.model and one.address.rstrip("/") == other.address.rstrip("/")


def refuse_small_budgets(asked: AgentEndpoints, plan: MakingPlan) -> None:
    """Raises UserError for every budget that pays for no first question of an agent."""
    mistakes = []
    first = plan.begun(ItemKey(0, 0))
    for agent, name in asked.name_of.items():
        endpoint = asked.endpoints.get(name)
        if endpoint is None:
            continue
        wall = wall_of(endpoint)
        needed = most(plan.question(agent, first), wall)
        if fits(Amount(0, 0.0), needed, wall):
            continue
        key = "budget_tokens" if wall.tokens is not None and needed.tokens > wall.tokens else "budget_money"
        need = f"{needed.tokens:,} tokens" if key == "budget_tokens" else f"{needed.cost:.4g}"
        rule = f"pays for no question of the agent {agent}, which may cost {need}"
        mistakes.append(
            Mistake(f"{name}.{key}", vars(endpoint)[key], rule, f"raise it, or lower {agent}.max_tokens")
        )
    if mistakes:
        raise UserError(mistakes)
