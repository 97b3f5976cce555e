"""Weight gradients of linear layers, computed on idle CPU cores while the backward pass goes on.

To continue, the backward pass needs the gradient of a layer's input. It needs the gradient of the layer's
weight, a third of all matrix products, only at the end (the split of "zero bubble" pipelines, arXiv
2401.10241). So the latter is deferred to a thread that the kernel runs only while a core is idle
(SCHED_IDLE), such as a core that the engine does not use. What the thread has not begun at the end of the
backward pass is computed by the pass itself.

    forward    weight ─Held─► held ─► linear(input, held)            every Held before the first linear
    backward   linear: gradient of the input now; of the weight     ─► thread, or now if `MOST_WAITING` wait
               Held: waits for the thread, or computes it           ─► the parameter's gradient

Autograd visits functions in the reverse order of their creation, so every Held comes last. The sums are the
same in the same order, so the gradients are identical bit for bit.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from dynalign.configs.errors import DeadlineExceeded

MOST_WAITING = 8
"""Most gradients that wait for the thread: each keeps the gradient of its layer's output in memory."""
_DEADLINE_S = 600.0
"""Seconds to wait for a gradient that the thread has begun. While the backward pass waits, its core is idle
and can be used."""


class SpareCores:
    """A thread with the lowest priority."""

    def __init__(self, cores: Iterable[int]) -> None:
        """Start the thread on `cores`. Raises OSError if the kernel, or a container's filter, forbids it."""
        self._thread = ThreadPoolExecutor(1, "spare-cores")
        self._thread.submit(_yield_to_all, frozenset(cores)).result(_DEADLINE_S)
        self._waiting: deque[Future[None]] = deque()

    def begin(self, act: Callable[[], None]) -> Future[None] | None:
        """Queue `act` for the thread; None if `MOST_WAITING` calls are queued already."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        if len(self._waiting) >= MOST_WAITING:
            return None
        self._waiting.append(self._thread.submit(act))
        return self._waiting[-1]


def _yield_to_all(cores: frozenset[int]) -> None:
    thread = threading.get_native_id()
    os.sched_setaffinity(thread, cores)
    os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


class DeferredGradients:
    """Makes the linear layers of a model defer the gradient of their weight.

    Not possible together with recomputed activations or sharded weights.
    """

    def __init__(self, model: nn.Module, spare: SpareCores) -> None:
        linears = [
            module for module in model.modules() if type(module) is nn.Linear and module.weight.requires_grad
        ]
        self._layers = [_Layer(module, spare) for module in linears]

    def hold(self) -> None:
        """Call this before a forward pass with gradient."""
        for layer in self._layers:
            layer.hold()


class _Layer:
    """One linear layer. If it is called twice in a pass, the second call is an ordinary one."""

    def __init__(self, module: nn.Linear, spare: SpareCores) -> None:
        self._module = module
        self._spare = spare
        self._held: Tensor | None = None
        self._begun: tuple[Callable[[], None], Future[None]] | None = None
        module.forward = self.forward  # type: ignore[method-assign]

    def hold(self) -> None:
        self._held = _Held.apply(self._module.weight, self)  # type: ignore[no-untyped-call]

    def forward(self, input: Tensor) -> Tensor:
        held = self._held
        self._held = None
        if held is None or not torch.is_grad_enabled():
            return linear(input, self._module.weight, self._module.bias)
        output: Tensor = _Linear.apply(input, held, self._module.bias, self)  # type: ignore[no-untyped-call]
        return output

    def gradient(self, by_output_SO: Tensor, input_SI: Tensor) -> Tensor:
        """Return the gradient of the weight, [output size, input size]; it may be filled in only by `settle`.

        by_output_SO: gradient of the output, [tokens, output size]. input_SI: [tokens, input size].
        """
        by_weight_OI = torch.empty_like(self._module.weight)

        def fill() -> None:
            with torch.no_grad():
                torch.mm(by_output_SO.t(), input_SI, out=by_weight_OI)

        begun = self._spare.begin(fill)
        self._begun = None if begun is None else (fill, begun)  # also discards what a failed pass left
        if begun is None:
            fill()
        return by_weight_OI

    def settle(self) -> None:
        """Return when the gradient is complete. Raises the error of its computation, or DeadlineExceeded."""
        if self._begun is None:
            return
        fill, begun = self._begun
        self._begun = None
        if begun.cancel():
            fill()
            return
        try:
            begun.result(_DEADLINE_S)
        except TimeoutError as error:
            raise DeadlineExceeded("a weight gradient on a spare core", _DEADLINE_S) from error


class _Held(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_OI: Tensor, layer: _Layer) -> Tensor:
        ctx.layer = layer
        return weight_OI.view_as(weight_OI)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_weight_OI: Tensor) -> tuple[Tensor, None]:
        ctx.layer.settle()
        return by_weight_OI, None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, held_OI: Tensor, bias_O: Tensor | None, layer: _Layer) -> Tensor:
        ctx.save_for_backward(input, held_OI)
        ctx.layer = layer
        return linear(input, held_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight_OI = ctx.saved_tensors
        by_output_SO = by_output.reshape(-1, by_output.shape[-1])
        by_input = (by_output_SO @ weight_OI).view(input.shape) if ctx.needs_input_grad[0] else None
        by_bias_O = by_output_SO.sum(0) if ctx.needs_input_grad[2] else None
        return by_input, ctx.layer.gradient(by_output_SO, input.reshape(-1, input.shape[-1])), by_bias_O, None
