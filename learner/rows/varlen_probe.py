"""Whether the one call for a row computes on this device what a call for each part does: tried before
training.

A kernel with another alignment, window or gradient would raise no error, and train on wrong
log-probabilities.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dynalign.configs.errors import Mistake, UserError, one_line
from dynalign.learner.rows.attention import packed_attention
from dynalign.learner.rows.rows import Layout
from dynalign.learner.rows.varlen import VarlenKernel, VarlenRow, torch_kernel
from dynalign.learner.rows.varlen_reference import reference_varlen

Heads = tuple[int, int, int]
"""Query heads, key-value heads, width of each."""
LAYOUT: Layout = ((70, 130, 0, 1, 45), (3, 200))
"""The row that is tried: several prompts, an empty completion, one of a single token, uneven blocks."""
HEADS: tuple[Heads, ...] = ((4, 2, 64), (3, 3, 128))
"""Two widths, which flash attention has kernels of their own for; with shared keys and without."""
WINDOWS = (None, 17)
NAMES = ("output", "query_gradient", "key_gradient", "value_gradient")
ROUNDINGS = 4
"""Roundings of the largest value that are allowed beside twice the other form's error."""
_EXACT = {torch.bfloat16: torch.float32, torch.float32: torch.float64}
"""The precision that stands for the true value."""
_ERRORS = (ArithmeticError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError)
"""How a torch, a driver or a GPU without this kernel fails."""
_SHOWN_CHARACTERS = 200


class Deviation(NamedTuple):
    """How far both forms are from the true values of one tensor.

    Example: ``Deviation(once=0.004, apart=0.005, largest=3.1)``.
    """

    once: float
    """Largest error of the one call."""
    apart: float
    """Largest error of a call for each part."""
    largest: float
    """Largest true value."""


def varlen_deviations(
    kernel: VarlenKernel,
    device: torch.device,
    dtype: torch.dtype,
    layout: Layout,
    heads: Heads,
    window: int | None,
) -> dict[str, Deviation]:
    """Return how far the output and the gradients by queries, keys and values are off, by their names.

    The inputs are random, of precision `dtype`. The true values are those of plain products in the next
    higher precision.
    """
    draw = torch.Generator().manual_seed(1)
    tokens = sum(map(sum, layout))
    query_heads, key_heads, width = heads

    def random(count: int, *shape: int) -> Tensor:
        return torch.randn(1, count, *shape, generator=draw).to(device, dtype)

    inputs = [random(count, tokens, width) for count in (query_heads, key_heads, key_heads)]
    upstream_1Shd = random(tokens, query_heads, width)

    def computed(precision: torch.dtype, by: VarlenKernel | None) -> list[Tensor]:
        varlen = None if by is None else VarlenRow.of(layout, by, device)
        query, key, value = (whole.detach().to(precision).requires_grad_() for whole in inputs)
        output, _ = packed_attention(
            nn.Module(), query, key, value, None, sliding_window=window, layout=layout, varlen=varlen
        )
        gradients = torch.autograd.grad(output, (query, key, value), upstream_1Shd.to(precision))
        return [each.detach().to(_EXACT[dtype]) for each in (output, *gradients)]

    exact = computed(_EXACT[dtype], reference_varlen)
    forms = zip(NAMES, exact, computed(dtype, kernel), computed(dtype, None), strict=True)
    return {
        name: Deviation(_farthest(true - once), _farthest(true - apart), _farthest(true))
        for name, true, once, apart in forms
    }


def _farthest(values: Tensor) -> float:
    """Return the largest absolute value; NaN if there is one."""
    return float(values.abs().max())


def wrong_of(deviations: Mapping[str, Deviation], dtype: torch.dtype) -> list[str]:
    """Return what the one call has further off than rounding explains, in words.

    Allowed is twice the error of the other form, as in torch's own tests of its kernels, and a few roundings.
    """
    rounding = ROUNDINGS * torch.finfo(dtype).eps
    return [
        f"{name.replace('_', ' ')} off by {off.once:.2g}, and by {off.apart:.2g} in calls for each part"
        for name, off in deviations.items()
        if not off.once <= 2 * off.apart + rounding * off.largest
    ]


def checked_kernel(
    device: torch.device, dtype: torch.dtype, made: Callable[[], VarlenKernel] = torch_kernel
) -> VarlenKernel:
    """Return the kernel that `made` does, once it was right on a short row on this device.

    Raises UserError if there is none for this device and precision, or if it is wrong.
    """
    try:
        kernel = made()
        found = (
            varlen_deviations(kernel, device, dtype, LAYOUT, heads, window)
            for heads in HEADS
            for window in WINDOWS
        )
        wrong = next((words for each in found for words in wrong_of(each, dtype)), "")
        rule = f"is wrong with torch {torch.__version__} on this device: {wrong}" if wrong else ""
    except _ERRORS as error:
        cause = one_line(error)[:_SHOWN_CHARACTERS]
        rule = f"does not work with torch {torch.__version__} on this device ({cause})"
    if rule:
        raise UserError([Mistake("learner.attention", "varlen", rule, "set learner.attention=sdpa")])
    return kernel
