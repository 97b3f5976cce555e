"""Floating-point operations: how many a training step is made of, and how many a device does in a second.

Their quotient is the model FLOPs utilization (MFU) of PaLM (arXiv 2204.02311, appendix B), here against what
the device was measured to do.
"""

import time
from collections.abc import Sequence
from statistics import median

import torch

from dynalign.launch.models.shape import ModelShape
from dynalign.learner.rows.rows import Row

_SIZES = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the product: large enough for the device's full speed."""
_RUNS = 5


def step_operations(shape: ModelShape, rows_R: Sequence[Row]) -> int:
    """Forward and backward pass of packed rows: 6 per weight of a matrix and token that meets it, and 12 ·
    layers · width per query and key that an attention's plain form multiplies (it is counted as if it were
    not causal). Nothing that is computed twice counts twice.
    """
    matrices = shape.layers * shape.hidden * (2 * shape.queries + 2 * shape.keys + 3 * shape.mlp)
    tokens = sum(len(row.input_ids_S) for row in rows_R)
    predicted = sum(len(row.targets_T) for row in rows_R)
    prompts = [prompt for row in rows_R for prompt in row.layout]
    pairs = sum(prompt * prompt + sum(part * (prompt + part) for part in parts) for prompt, *parts in prompts)
    return (
        6 * matrices * tokens
        + 6 * shape.hidden * shape.vocabulary * predicted
        + 12 * shape.layers * shape.queries * pairs
    )


QUICK_SIZE = 256
"""Of a trial: a CPU without bfloat16 instructions takes 16 s for a product of 2,048 (1.1 GFLOP/s)."""


def product_operations_per_s(device: torch.device, quick: bool = False) -> float:
    """The median speed of a large bfloat16 matrix product of random values. quick: of a small one, which says
    nothing."""
    size = QUICK_SIZE if quick else _SIZES[device.type]
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))

    def product_s() -> float:
        finish(device)
        started_s = time.perf_counter()
        torch.mm(left, right)
        finish(device)
        return time.perf_counter() - started_s

    product_s()  # the first call chooses a kernel
    return 2 * size**3 / median(product_s() for _ in range(_RUNS))


def finish(device: torch.device) -> None:
    """Waits until the device has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
