"""Log-probabilities, entropy, a loss of the log-probabilities, and its gradient, in one pass over the logits
of a linear head.

The gradient of log π(target) with respect to the logits is onehot - softmax, so it needs the logits alone;
only its factor ∂loss/∂log π needs the loss. A loss that is a sum over tokens can be computed chunk by chunk,
so the gradient is complete after the forward pass: the logits are computed once, not twice as in
`logprobs.py`, and the gradient overwrites them in place. This is Liger's fused linear loss (arXiv
2410.10989), plus the entropy that the report needs.

    chunk    hidden · weight ─► logits ─► block by block: log π, entropy; logits := softmax - onehot
             loss(log π) ─► factors ─► gradient of hidden, gradient of weight

Axes: T completion tokens, t those of a chunk, b those of a block, H hidden size, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

TokenLoss = Callable[[Tensor, slice], Tensor]
"""A sum over tokens: takes the log-probabilities of some tokens and the slice that says which, and returns a
scalar."""

CACHE_ELEMENTS = 1 << 18
"""Logits reduced at a time on a CPU: two float32 copies of them, 2 MB, fit a core's cache. Reducing a whole
chunk at once is 2 to 3 times slower; blocks of a quarter of this size are as slow, because of the number of
calls."""


def is_fusable(head: nn.Module) -> bool:
    """Return whether `head` is a plain linear layer without bias.

    A layer with an adapter is not, and neither is one of ZeRO 3, whose weight is complete only inside its own
    forward call.
    """
    return type(head) is nn.Linear and head.bias is None and not hasattr(head.weight, "ds_id")


def head_loss(
    hidden_TH: Tensor, weight_VH: Tensor, targets_T: Tensor, loss: TokenLoss, chunk_tokens: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``(loss, logprobs_T, entropy_T)``: a scalar with gradient, the others without; float32 (float64
    stays), nats.

    The forward pass computes the gradient, and the backward pass only returns it; it can run once.

    hidden_TH: the final hidden state before each completion token.
    weight_VH: the weight of the head, in the same float type.
    targets_T: the ids of the completion tokens.
    chunk_tokens: the most tokens whose logits exist at one time, in the type of `weight_VH`.
    """
    arguments = (hidden_TH, weight_VH, targets_T, loss, chunk_tokens)
    outputs: tuple[Tensor, Tensor, Tensor] = _HeadLoss.apply(*arguments)  # type: ignore[no-untyped-call]
    return outputs


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TH: Tensor, weight_VH: Tensor, targets_T: Tensor, loss: TokenLoss, chunk_tokens: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        tokens_count = len(targets_T)
        wide = torch.promote_types(hidden_TH.dtype, torch.float32)
        logprobs_T = torch.empty(tokens_count, dtype=wide, device=hidden_TH.device)
        entropy_T = torch.empty_like(logprobs_T)
        by_hidden_TH = torch.empty_like(hidden_TH)
        by_weight_VH = torch.zeros_like(weight_VH) if ctx.needs_input_grad[1] else None
        total = logprobs_T.new_zeros(())
        for start in range(0, tokens_count, chunk_tokens):
            tokens = slice(start, min(start + chunk_tokens, tokens_count))
            logits_tV = hidden_TH[tokens] @ weight_VH.T
            logprobs_T[tokens], entropy_T[tokens] = _reduced(logits_tV, targets_T[tokens])
            value, factors_t = _value_and_gradient(loss, logprobs_T[tokens], tokens)
            total += value
            # Now logits_tV is softmax - onehot, the negative of what the factors multiply. The factors
            # multiply rows, so they can be applied to the narrower operands of the two products.
            factors_t1 = factors_t.neg().unsqueeze(-1)
            by_hidden_TH[tokens] = (logits_tV @ weight_VH) * factors_t1
            if by_weight_VH is not None:
                by_weight_VH.addmm_(logits_tV.T, (hidden_TH[tokens] * factors_t1).to(weight_VH.dtype))
        ctx.gradients = (by_hidden_TH, by_weight_VH)
        ctx.mark_non_differentiable(logprobs_T, entropy_T)
        return total, logprobs_T, entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_total: Tensor, *_: object) -> tuple[Tensor | None, ...]:
        by_hidden_TH, by_weight_VH = ctx.gradients
        ctx.gradients = None  # freed, and a second backward pass fails
        scaled_VH = None if by_weight_VH is None else by_weight_VH.mul_(by_total)
        return by_hidden_TH.mul_(by_total), scaled_VH, None, None, None


def _reduced(logits_tV: Tensor, targets_t: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(logprobs_t, entropy_t)``, and replace the logits by softmax - onehot.

    The logits must be finite: the entropy would contain 0 · inf.
    """
    wide = torch.promote_types(logits_tV.dtype, torch.float32)
    on_cpu = logits_tV.device.type == "cpu"
    block_tokens = max(1, CACHE_ELEMENTS // logits_tV.shape[1]) if on_cpu else len(logits_tV)
    logprobs = []
    entropies = []
    blocks = zip(torch.split(logits_tV, block_tokens), torch.split(targets_t, block_tokens), strict=True)
    for logits_bV, targets_b in blocks:
        targets_b1 = targets_b.unsqueeze(-1)
        wide_bV = logits_bV.to(wide)
        softmax_bV = wide_bV.softmax(-1)
        # logsumexp; the probability of the likeliest token is never rounded to 0
        normalizer_b = wide_bV.amax(-1) - softmax_bV.amax(-1).log()
        logprobs.append(wide_bV.gather(-1, targets_b1).squeeze(-1) - normalizer_b)
        entropies.append(normalizer_b - wide_bV.mul_(softmax_bV).sum(-1))
        softmax_bV.scatter_add_(-1, targets_b1, softmax_bV.new_full((), -1.0).expand(targets_b1.shape))
        logits_bV.copy_(softmax_bV)
    return torch.cat(logprobs), torch.cat(entropies)


def _value_and_gradient(loss: TokenLoss, logprobs_t: Tensor, tokens: slice) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        variable_t = logprobs_t.detach().requires_grad_()
        value = loss(variable_t, tokens)
        (gradient_t,) = torch.autograd.grad(value, variable_t)
    return value.detach(), gradient_t
