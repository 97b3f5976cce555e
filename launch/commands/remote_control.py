"""Calls the coordinator of a run, for shells that reach its cluster and not its folder.

It is found by its name, in Ray's namespace `dynalign`.
"""

from typing import Any

import ray
from ray.util import list_named_actors

from dynalign.actors.run_spec import NAMESPACE
from dynalign.configs.errors import DeadlineExceeded, Mistake, UserError
from dynalign.configs.refusals import did_you_mean
from dynalign.launch.ray_cluster.connection import join

ANSWER_DEADLINE_S = 60.0
"""The coordinator answers between two awaits of its loop; a call that it makes may delay it."""

_LEDGER = "-ledger"


def call(run: str, method: str, *arguments: object) -> Any:
    """What the coordinator of `run` answers, on the cluster that RAY_ADDRESS names.

    Raises UserError when RAY_ADDRESS names no cluster that can be joined, or no such run is going on there;
    DeadlineExceeded when the coordinator does not answer.
    """
    if not join():
        rule = "its folder is not here, and RAY_ADDRESS names no cluster to look for it"
        remedy = "set --runs=FOLDER, or RAY_ADDRESS=host:port of the cluster's head"
        raise UserError([Mistake("run", run, rule, remedy)])
    try:
        return _call(run, method, *arguments)
    finally:
        ray.shutdown()


def _call(run: str, method: str, *arguments: object) -> Any:
    known = running(names())
    if run not in known:
        close = did_you_mean(run, known)
        remedy = "no run is, at the moment"
        if close:
            remedy = f"did you mean {close}?"
        elif known:
            remedy = f"there are: {', '.join(known)}"
        raise UserError([Mistake("run", run, "is not going on in the cluster", remedy)])
    ended = UserError([Mistake("run", run, "has just ended", "ask again: it may be on its way back")])
    try:
        coordinator = ray.get_actor(run, namespace=NAMESPACE)
    except ValueError as error:
        raise ended from error
    try:
        return ray.get(getattr(coordinator, method).remote(*arguments), timeout=ANSWER_DEADLINE_S)
    except ray.exceptions.GetTimeoutError as error:
        raise DeadlineExceeded(f"the coordinator of run {run} to answer", ANSWER_DEADLINE_S) from error
    except ray.exceptions.RayActorError as error:
        raise ended from error


def running(names: list[str]) -> list[str]:
    """The runs among all actors' names: a coordinator has the run's name, a ledger adds `-ledger`."""
    return sorted(name for name in names if f"{name}{_LEDGER}" in names)


def names() -> list[str]:
    """Every named actor of every run on the cluster that this process has joined."""
    return [
        actor["name"] for actor in list_named_actors(all_namespaces=True) if actor["namespace"] == NAMESPACE
    ]
