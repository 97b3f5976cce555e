"""Weight gradients that are put off: the same to the bit, whoever computes them, and by a thread that gets in
nobody's way.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynalign.configs.sections.learner import LoraSettings
from dynalign.learner.head.spare_cores import MOST_WAITING, DeferredGradients, SpareCores
from tests.worlds.one_rank import Learner
from tests.worlds.tiny_groups import payloads, random_groups
from tests.worlds.tiny_models import settings, tiny_llama

CORES = os.sched_getaffinity(0)


class Never(SpareCores):
    """Its thread is busy for ever with something else, until `free`."""

    def __init__(self) -> None:
        super().__init__(CORES)
        self._freed = threading.Event()
        super().begin(self._freed.wait)  # type: ignore[arg-type]
        self.begun = 0

    def begin(self, act: Callable[[], None]) -> Future[None] | None:
        future = super().begin(act)
        self.begun += future is not None
        return future

    def free(self) -> None:
        self._freed.set()


class Fails(SpareCores):
    """Its thread breaks down over every product."""

    def begin(self, act: Callable[[], None]) -> Future[None] | None:
        begun = super().begin(_fail)
        assert begun is not None
        wait([begun], 10)
        return begun


def _fail() -> None:
    raise ArithmeticError("no product today")


class Tower(nn.Module):
    """More layers than may wait, with and without bias; the first one is called twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList(nn.Linear(6, 6, bias=index % 2 == 0) for index in range(MOST_WAITING + 4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.layers, self.layers[0]):
            x = torch.tanh(layer(x)) + x
        return x


def gradients(tower: Tower, deferred: DeferredGradients | None = None, passes: int = 2) -> list[Tensor]:
    """Summed over several passes, as over the rows of a step."""
    tower.zero_grad()
    for index in range(passes):
        if deferred is not None:
            deferred.hold()
        tower(torch.linspace(-1, 1, 5 * 6).view(1, 5, 6) + index).square().sum().backward()
    return [parameter.grad.clone() for parameter in tower.parameters() if parameter.grad is not None]


def test_not_a_bit_of_a_gradient_changes() -> None:
    tower = Tower()
    expected = gradients(tower)
    deferred = DeferredGradients(tower, SpareCores(CORES))
    assert len(expected) == len(list(tower.parameters()))
    assert all(map(torch.equal, gradients(tower, deferred), expected))
    assert all(map(torch.equal, gradients(tower), expected))  # without `hold` the layers are ordinary ones


def test_the_backward_pass_waits_for_nothing_that_the_thread_has_not_begun() -> None:
    tower = Tower()
    expected = gradients(tower, passes=1)
    never = Never()
    assert all(map(torch.equal, gradients(tower, DeferredGradients(tower, never), passes=1), expected))
    assert (
        never.begun == MOST_WAITING - 1
    )  # the rest was computed at once; what keeps the thread counts as waiting
    never.free()


def test_an_error_in_the_thread_is_the_backward_passes() -> None:
    layer = nn.Linear(3, 3)
    deferred = DeferredGradients(layer, Fails(CORES))
    deferred.hold()
    loss = layer(torch.ones(2, 3)).sum()
    with pytest.raises(ArithmeticError, match="no product today"):
        loss.backward()


def test_the_thread_yields_to_everybody_and_keeps_to_its_cores() -> None:
    seen: list[tuple[int, set[int]]] = []
    begun = SpareCores({min(CORES)}).begin(
        lambda: seen.append((os.sched_getscheduler(0), os.sched_getaffinity(0)))
    )
    assert begun is not None
    begun.result(10)
    assert seen == [(os.SCHED_IDLE, {min(CORES)})]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert os.sched_getaffinity(0) == CORES


@pytest.mark.parametrize(
    "changed", [{"minibatches": 2, "kl_coef": 0.1}, {"lora": LoraSettings(rank=4), "zero_stage": 2}]
)
def test_a_step_of_the_learner_is_the_same_to_the_bit(tmp_path: Path, changed: dict[str, Any]) -> None:
    llama = tiny_llama(tmp_path)
    trained = []
    for cores in ((), CORES):
        learner = Learner(settings(llama, **changed), llama, 0, 1, cores)
        for step in (1, 2):
            learner.prepare(step, *payloads(random_groups(3, seed=step)))
            report = learner.run(step)
        version = learner.weights(1)
        assert version is not None
        trained.append((report["loss"], report["grad_norm"], [bytes(bucket) for bucket in version[1]]))
    assert trained[0] == trained[1]


def test_where_the_kernel_refuses_the_learner_says_so_and_goes_on_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = {os.sysconf("SC_NPROCESSORS_CONF") + beyond for beyond in (1, 2)}
    with pytest.raises(OSError, match="Invalid argument"):
        SpareCores(nowhere)
    llama = tiny_llama(tmp_path)
    learner = Learner(settings(llama), llama, 0, 1, nowhere)
    assert "learner.spare_cores: [Errno 22] Invalid argument; the backward pass goes on alone" in caplog.text
    learner.prepare(1, *payloads(random_groups(3)))
    assert learner.run(1)["grad_norm"] > 0
