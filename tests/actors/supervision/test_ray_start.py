import pytest

from dynalign.actors.supervision.ray_start import started_or_failed
from dynalign.configs.errors import RunFailed


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup.\nThis could happen because …"),
        RuntimeError("The current node timed out during startup."),
        ConnectionError("The current node timed out during startup."),
    ],
)
def test_whatever_ray_raises_at_its_start_is_one_line_with_the_cause(error: Exception) -> None:
    def init() -> None:
        raise error

    with pytest.raises(RunFailed) as caught:
        started_or_failed(init, "Ray does not start in this machine")
    assert str(caught.value) == (
        "Ray does not start in this machine: The current node timed out during startup."
    )


def test_an_error_without_a_text_is_named_by_its_type() -> None:
    def init() -> None:
        raise TimeoutError

    with pytest.raises(RunFailed, match="could not be joined: TimeoutError"):
        started_or_failed(init, "could not be joined")


def test_a_ray_that_starts_is_left_alone() -> None:
    called = []
    started_or_failed(lambda: called.append(True), "Ray does not start")
    assert called == [True]
