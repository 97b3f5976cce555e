"""Whom the workers of a run may ask besides their own engine: filled from the settings, by name."""

from dynalign.actors.gateway.gateway_link import GatewayLink
from dynalign.actors.pool.names import engine_names, pool_names
from dynalign.actors.pool.pool import Pool
from dynalign.actors.run_spec import gateway_name
from dynalign.configs.schema import RunSettings
from dynalign.rollout.judges.respondents import AskedModel, Askers


def askers(run: RunSettings) -> Askers:
    """Name → the model that is asked under it.

    They can be pickled, and look for their actors with the first question. A question to a pool may wait for
    a new engine to load, and then for its answer. As many engines may end over one as workers over a prompt.
    A question to an endpoint goes through the gateway.
    """
    found = {name: _at_gateway(run, name) for name in run.judge.endpoints}
    pool = run.judge.pool
    if pool is None:
        return found
    deadline_s = pool.answer_s + run.deadlines.start_s
    names = engine_names(run.name, pool.engines)
    asked = Pool(f"{run.name}'s judge.pool", names, deadline_s, run.supervision.poison_attempts)
    return found | dict.fromkeys(pool_names(run), AskedModel(asked, pool.model or run.model))


def _at_gateway(run: RunSettings, name: str) -> AskedModel:
    endpoint = run.judge.endpoints[name]
    link = GatewayLink(gateway_name(run), name, run.deadlines.start_s, endpoint.deadline_s)
    if not endpoint.input_price and not endpoint.output_price:
        return AskedModel(link, endpoint.model)
    return AskedModel(link, endpoint.model, endpoint.input_price, endpoint.output_price)
