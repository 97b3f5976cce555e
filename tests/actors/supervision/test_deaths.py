"""Which errors mean that an actor is gone: all of Ray's that say so, and none that an actor raised itself."""

import pytest
from ray import exceptions

from dynalign.actors.supervision.deaths import death, root_cause
from dynalign.actors.supervision.worker_pool import why_ended
from dynalign.configs.errors import DeadlineExceeded, LearnerLost, WeightsError

FIGURES = "Memory on the node (IP: 10.0.0.7, ID: 0a1b) was 61.2GB used / 64.0GB limit (0.956)"
KILLED = (
    f"1 worker(s) were killed due to the node running low on memory.\n{FIGURES}\nRefer to the documentation."
)


def task_error(cause: Exception) -> BaseException:
    """As `ray.get` raises it: of the cause's type too."""
    wrapped: BaseException = exceptions.RayTaskError("train", "", cause).as_instanceof_cause()
    return wrapped


@pytest.mark.parametrize(
    "error",
    [
        exceptions.RayActorError(),
        exceptions.ActorDiedError(),
        exceptions.ActorUnavailableError("no route to host", None),
        exceptions.NodeDiedError("its node is dead"),
        exceptions.WorkerCrashedError(),
        exceptions.LocalRayletDiedError(),
        exceptions.ObjectLostError("00", None, ""),
        exceptions.OwnerDiedError("00", None, ""),
        exceptions.ReferenceCountingAssertionError("00", None, ""),
        exceptions.ActorUnschedulableError("its node is gone"),
        exceptions.ActorPlacementGroupRemoved(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_ray_says_of_an_actor_that_is_gone_is_a_death(error: BaseException) -> None:
    gone = death(error)
    assert gone is not None
    assert gone.cause == "died"
    assert "\n" not in gone.detail


@pytest.mark.parametrize(
    "error", [exceptions.OutOfMemoryError(KILLED), exceptions.RayActorError(None, KILLED)]
)
def test_a_node_that_ran_out_of_memory_is_named_with_its_figures(error: BaseException) -> None:
    gone = death(error)
    assert gone is not None
    assert gone.cause == "memory"
    assert gone.detail == f"the node's memory ran out: {FIGURES.replace(', ID: 0a1b', '')}"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        LearnerLost("died", "a rank is gone"),
        exceptions.RaySystemError("broken"),
        exceptions.RuntimeEnvSetupError("no such package"),
        task_error(exceptions.ActorDiedError()),
        task_error(ValueError("no")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_an_actor_raises_itself_is_an_answer(error: BaseException) -> None:
    assert death(error) is None


def test_the_root_of_an_error_is_what_the_actor_raised() -> None:
    cause = ValueError("no")
    assert root_cause(task_error(cause)) is cause
    assert root_cause(cause) is cause


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (exceptions.OutOfMemoryError(KILLED), "memory"),
        (exceptions.NodeDiedError("dead"), "died"),
        (task_error(exceptions.ActorDiedError()), "died"),
        (task_error(WeightsError("torn")), "weights"),
        (DeadlineExceeded("weight version 3", 1.0), "weights"),
        (DeadlineExceeded("an answer", 1.0), "hung"),
        (OSError(28, "No space left on device"), "storage"),
        (task_error(ValueError("no")), "failed"),
    ],
)
def test_why_a_worker_ended_is_one_word(error: Exception, cause: str) -> None:
    assert why_ended(error)[0] == cause
