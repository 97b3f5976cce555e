"""Whom the workers of a run may ask besides their own engine: filled from the settings, by name."""

from dynalign.actors.pool.names import engine_names, pool_names
from dynalign.actors.pool.pool import Pool
from dynalign.configs.schema import RunSettings
from dynalign.rollout.judges.respondents import AskedModel, Askers


def askers(run: RunSettings) -> Askers:
    """Name → the model that is asked under it.

    They can be pickled, and look for their actors with the first question. A question to a pool may wait for
    a new engine to load, and then for its answer. As many engines may end over one as workers over a prompt.
    """
    pool = run.judge.pool
    if pool is None:
        return {}
    deadline_s = pool.answer_s + run.deadlines.start_s
    names = engine_names(run.name, pool.engines)
    asked = Pool(f"{run.name}'s judge.pool", names, deadline_s, run.supervision.poison_attempts)
    return dict.fromkeys(pool_names(run), AskedModel(asked, pool.model or run.model))
