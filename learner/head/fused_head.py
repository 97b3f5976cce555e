"""Log-probabilities, entropy, a loss of the log-probabilities and its gradient in one pass over the logits of a linear head.

The gradient of log π(target) by the logits, onehot - softmax, is known as soon as the logits are; only its factor ∂loss/∂log π waits
for the loss. A loss that is a sum over tokens is known chunk by chunk, so nothing is left for the backward pass: logits are made once
instead of twice (`logprobs.py` recomputes them), and become their own gradient in place. As Liger's fused linear losses (arXiv
2410.10989), with the entropy that a report needs.

    chunk    hidden · weight ─► logits ─► block by block: log π, entropy; logits := softmax - onehot
             loss(log π) ─► factors ─► gradient by hidden, gradient by weight
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

TokenLoss = Callable[[Tensor, slice], Tensor]
"""A sum over tokens, as a function of the log-probabilities of some of them and of the slice that these are."""

CACHE_ELEMENTS = 1 << 18
"""On a CPU as many logits are reduced at a time as a core's cache holds in float32, twice: 2 MB. The whole chunk at once is 2 to 3 times
slower; so is a fourth of it by the calls it takes."""


def is_fusable(head: nn.Module) -> bool:
    """A plain linear layer without bias: not an adapter's, and not one of ZeRO 3, whose weight is whole inside its own forward only."""
    return type(head) is nn.Linear and head.bias is None and not hasattr(head.weight, "ds_id")


def head_loss(
    hidden_TH: Tensor, weight_VH: Tensor, targets_T: Tensor, loss: TokenLoss, chunk_tokens: int
) -> tuple[Tensor, Tensor, Tensor]:
    """``(loss, logprobs_T, entropy_T)``: the first a scalar with gradient, the others without; float32 (float64 stays), nats.

    :param hidden_TH: the final hidden state before each completion token.
    :param weight_VH: of the head, in the same float type.
    :param chunk_tokens: the most tokens whose logits exist at one time, in the type of `weight_VH`.

    The gradient is computed here and only handed on by the backward pass, which can run once.
    """
    outputs: tuple[Tensor, Tensor, Tensor] = _HeadLoss.apply(
        hidden_TH, weight_VH, targets_T, loss, chunk_tokens
    )  # type: ignore[no-untyped-call]
    return outputs


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TH: Tensor, weight_VH: Tensor, targets_T: Tensor, loss: TokenLoss, chunk_tokens: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        tokens_count, wide = len(targets_T), torch.promote_types(hidden_TH.dtype, torch.float32)
        logprobs_T, entropy_T = (
            torch.empty(tokens_count, dtype=wide, device=hidden_TH.device) for _ in range(2)
        )
        by_hidden_TH = torch.empty_like(hidden_TH)
        by_weight_VH = torch.zeros_like(weight_VH) if ctx.needs_input_grad[1] else None
        total = logprobs_T.new_zeros(())
        for start in range(0, tokens_count, chunk_tokens):
            tokens = slice(start, min(start + chunk_tokens, tokens_count))
            logits_tV = hidden_TH[tokens] @ weight_VH.T
            logprobs_T[tokens], entropy_T[tokens] = _reduced(logits_tV, targets_T[tokens])
            value, factors_t = _value_and_slope(loss, logprobs_T[tokens], tokens)
            total += value
            # Now logits_tV is softmax - onehot, the negative of what the factors multiply. They multiply rows, so they can as well
            # multiply the narrow sides of the two products.
            factors_t1 = factors_t.neg().unsqueeze(-1)
            by_hidden_TH[tokens] = (logits_tV @ weight_VH) * factors_t1
            if by_weight_VH is not None:
                by_weight_VH.addmm_(logits_tV.T, (hidden_TH[tokens] * factors_t1).to(weight_VH.dtype))
        ctx.gradients = by_hidden_TH, by_weight_VH
        ctx.mark_non_differentiable(logprobs_T, entropy_T)
        return total, logprobs_T, entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_total: Tensor, *_: object) -> tuple[Tensor | None, ...]:
        (by_hidden_TH, by_weight_VH), ctx.gradients = ctx.gradients, None
        return (
            by_hidden_TH.mul_(by_total),
            None if by_weight_VH is None else by_weight_VH.mul_(by_total),
            None,
            None,
            None,
        )


def _reduced(logits_tV: Tensor, targets_t: Tensor) -> tuple[Tensor, Tensor]:
    """``(logprobs_t, entropy_t)``; replaces the logits by softmax - onehot. Finite logits only: 0 · inf is no entropy."""
    wide = torch.promote_types(logits_tV.dtype, torch.float32)
    block_tokens = (
        len(logits_tV) if logits_tV.device.type != "cpu" else max(1, CACHE_ELEMENTS // logits_tV.shape[1])
    )
    logprobs, entropies = [], []
    for logits_bV, targets_b in zip(
        torch.split(logits_tV, block_tokens), torch.split(targets_t, block_tokens), strict=True
    ):
        targets_b1 = targets_b.unsqueeze(-1)
        wide_bV = logits_bV.to(wide)
        softmax_bV = wide_bV.softmax(-1)
        normalizer_b = (
            wide_bV.amax(-1) - softmax_bV.amax(-1).log()
        )  # logsumexp: the likeliest token is never rounded to 0
        logprobs.append(wide_bV.gather(-1, targets_b1).squeeze(-1) - normalizer_b)
        entropies.append(normalizer_b - wide_bV.mul_(softmax_bV).sum(-1))
        softmax_bV.scatter_add_(-1, targets_b1, softmax_bV.new_full((), -1.0).expand(targets_b1.shape))
        logits_bV.copy_(softmax_bV)
    return torch.cat(logprobs), torch.cat(entropies)


def _value_and_slope(loss: TokenLoss, logprobs_t: Tensor, tokens: slice) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        variable_t = logprobs_t.detach().requires_grad_()
        value = loss(variable_t, tokens)
        (slope_t,) = torch.autograd.grad(value, variable_t)
    return value.detach(), slope_t
