"""Whether a model computes in packed rows what it computes for each sequence alone: tried on a short row
before training.

Most architectures that cannot be packed raise no error; they would train on wrong log-probabilities.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dynalign.configs.errors import Mistake, one_line
from dynalign.learner.rows.attention import PACKED
from dynalign.learner.rows.rows import Layout

Packed = Callable[[Tensor, Tensor, Layout, Tensor, Tensor, int], tuple[Tensor, ...]]
"""The forward pass of `policy.Policy`, without a loss."""
PROBE_TOKENS = 6
"""Tokens of the prompt, and of each completion, in the row with which `load_policy` tests the packing."""
PROBE_TOLERANCE_NATS = 0.005
"""Largest mean difference of log-probabilities between a packed and a plain forward pass that rounding
explains, in float32. In bfloat16 it would be 0.3 nats, less than what some recurrent layers are off by."""
_SHOWN_CHARACTERS = 200
"""At most so much of a library's error is quoted."""
_PROBE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""How an architecture whose forward pass has another form than the packed one fails at the probe."""


def packing_mistakes(model: PreTrainedModel, packed: Packed, model_folder: Path) -> list[Mistake]:
    """Return what is wrong with the model of `model_folder` for packed rows; nothing if it can be packed.

    packed: its forward pass over a packed row.
    """
    remedy = "use an architecture with plain softmax attention and an unscaled head"
    try:
        with _in_float32(model):
            difference = packing_difference_nats(model, packed)
    except _PROBE_ERRORS as error:
        rule = f"the learner cannot pack rows for this architecture ({one_line(error)[:_SHOWN_CHARACTERS]})"
        return [Mistake("model", str(model_folder), rule, remedy)]
    if difference <= PROBE_TOLERANCE_NATS:
        return []
    damaged = _not_finite(model)
    if damaged is not None:
        rule = f"its weights hold values that are not finite, the first in {damaged}"
        return [Mistake("model", str(model_folder), rule, "save or download the model again")]
    rule = f"log-probabilities in packed rows differ from the model's own forward by {difference:.2g} nats"
    return [Mistake("model", str(model_folder), rule, remedy)]


def _not_finite(model: PreTrainedModel) -> str | None:
    """Return the name of the first weight with a value that is not finite; None if all are."""
    return next(
        (name for name, parameter in model.named_parameters() if not bool(parameter.isfinite().all())),
        None,
    )


@contextmanager
def _in_float32(model: PreTrainedModel) -> Iterator[None]:
    """In this context, all weights are in float32, which represents their values exactly."""
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    before = [tensor.dtype for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, dtype in zip(tensors, before, strict=True):
            tensor.data = tensor.data.to(dtype)


@torch.no_grad()
def packing_difference_nats(model: PreTrainedModel, packed: Packed) -> float:
    """Return the mean difference in log-probabilities between two short sequences in one packed row and each
    of them alone.

    The latter uses the model's own forward pass and attention. The test detects architectures that would
    train wrongly without an error: recurrent layers that carry state from one sequence to the next, scaled or
    capped logits.
    """
    n = PROBE_TOKENS
    ids = (torch.arange(3 * n) * 7919 + 11) % int(model.config.get_text_config().vocab_size)
    context, first, second = torch.split(ids, n)
    input_ids_S = torch.cat([context, first[:-1], second[:-1]])
    position_ids_S = torch.cat([torch.arange(n), *[torch.arange(n, 2 * n - 1)] * 2])
    ends = torch.tensor([n - 1])
    predicting_T = torch.cat([ends, torch.arange(n, 2 * n - 1), ends, torch.arange(2 * n - 1, 3 * n - 2)])
    model.eval()  # type: ignore[no-untyped-call]
    packed_T, _ = packed(
        input_ids_S, position_ids_S, ((n, n - 1, n - 1),), predicting_T, torch.cat([first, second]), 1
    )
    model.set_attn_implementation("eager")
    plain = []
    for completion in (first, second):
        logits_TV = model(torch.cat([context, completion])[None]).logits[0, n - 1 : -1].float()
        plain.append(logits_TV.log_softmax(-1).gather(-1, completion[:, None])[:, 0])
    model.set_attn_implementation(PACKED)
    return float((packed_T - torch.cat(plain)).abs().mean())
