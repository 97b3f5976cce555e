"""The loss with its gradient in one pass over the logits: equal to autograd through whole logits, and never
more of them than a chunk.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dynalign.learner.head.fused_head import CACHE_ELEMENTS, TokenLoss, head_loss, is_fusable
from dynalign.learner.loss import RowLoss
from tests.learner.head.test_logprobs import H, LogitsWatch, T, V, problem
from tests.worlds import oracle


def row_loss(tokens: int = T, dtype: torch.dtype = torch.float64) -> RowLoss:
    """Ratios on both sides of the clip, a KL term, and a behaviour that was recorded for some tokens."""
    generator = torch.Generator().manual_seed(1)
    old, behaviour, reference, advantages = (
        torch.randn(tokens, generator=generator, dtype=dtype) for _ in range(4)
    )
    behaviour[::3] = torch.nan
    weights = torch.rand(tokens, generator=generator, dtype=dtype)
    return RowLoss(advantages, weights, 0.2, 0.28, 0.1, old - 4, behaviour - 4, reference - 4)


def by_autograd(
    hidden_TH: Tensor, weight_VH: Tensor, targets_T: Tensor, loss: TokenLoss
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, its gradient by hidden, its gradient by weight) through the whole logits."""
    logprobs_TV = (
        linear(hidden_TH, weight_VH).to(torch.promote_types(hidden_TH.dtype, torch.float32)).log_softmax(-1)
    )
    value = loss(logprobs_TV.gather(-1, targets_T[:, None])[:, 0], slice(None))
    return value, *torch.autograd.grad(value, (hidden_TH, weight_VH))


@pytest.mark.parametrize("chunk_tokens", [1, 5, T - 1, T, 1000])
def test_loss_values_and_gradients_are_those_of_the_whole_logits(chunk_tokens: int) -> None:
    hidden_TH, weight_VH, targets_T = problem()
    value, logprobs_T, entropy_T = head_loss(hidden_TH, weight_VH, targets_T, row_loss(), chunk_tokens)
    (3 * value).backward()

    expected, by_hidden, by_weight = by_autograd(hidden_TH, weight_VH, targets_T, row_loss())
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    assert hidden_TH.grad is not None
    assert weight_VH.grad is not None
    assert torch.allclose(hidden_TH.grad, 3 * by_hidden, rtol=0, atol=1e-12)
    assert torch.allclose(weight_VH.grad, 3 * by_weight, rtol=0, atol=1e-12)
    logits_TV = (hidden_TH @ weight_VH.T).detach().numpy()
    np.testing.assert_allclose(logprobs_T, oracle.logprobs(logits_TV, targets_T.tolist()), rtol=0, atol=1e-12)
    np.testing.assert_allclose(entropy_T, oracle.entropy(logits_TV), rtol=0, atol=1e-12)
    assert not logprobs_T.requires_grad
    assert not entropy_T.requires_grad


def test_a_weight_that_is_also_the_embedding_gets_both_gradients() -> None:
    _, weight_VH, targets_T = problem()
    inputs_T = targets_T.roll(1)
    value, *_ = head_loss(weight_VH[inputs_T], weight_VH, targets_T, row_loss(), 5)
    value.backward()
    assert weight_VH.grad is not None
    logprobs_T = linear(weight_VH[inputs_T], weight_VH).log_softmax(-1).gather(-1, targets_T[:, None])[:, 0]
    (expected,) = torch.autograd.grad(row_loss()(logprobs_T), weight_VH)
    assert torch.allclose(weight_VH.grad, expected, rtol=0, atol=1e-12)


def test_a_vocabulary_of_which_the_cache_holds_two_tokens_is_reduced_in_blocks() -> None:
    vocabulary = CACHE_ELEMENTS // 2
    hidden_TH, _, targets_T = problem(7)
    weight_VH = torch.randn(
        vocabulary, H, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    ).requires_grad_()
    value, _, entropy_T = head_loss(hidden_TH, weight_VH, targets_T, row_loss(7), 5)
    value.backward()
    _, by_hidden, by_weight = by_autograd(hidden_TH, weight_VH, targets_T, row_loss(7))
    assert hidden_TH.grad is not None
    assert weight_VH.grad is not None
    assert torch.allclose(hidden_TH.grad, by_hidden, rtol=0, atol=1e-12)
    assert torch.allclose(weight_VH.grad, by_weight, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        entropy_T, oracle.entropy((hidden_TH @ weight_VH.T).detach().numpy()), rtol=0, atol=1e-12
    )


def test_in_bfloat16_it_is_as_near_to_the_exact_gradient_as_autograd_is() -> None:
    hidden_TH, weight_VH, targets_T = problem(dtype=torch.float32)
    hidden_TH, weight_VH = (tensor.detach().bfloat16().requires_grad_() for tensor in (hidden_TH, weight_VH))
    loss = row_loss(dtype=torch.float32)
    value, *_ = head_loss(hidden_TH, weight_VH, targets_T, loss, T)
    value.backward()
    exact = by_autograd(
        hidden_TH.detach().double().requires_grad_(),
        weight_VH.detach().double().requires_grad_(),
        targets_T,
        loss,
    )
    rounded = by_autograd(hidden_TH, weight_VH, targets_T, loss)
    for mine, theirs, true in zip((hidden_TH.grad, weight_VH.grad), rounded[1:], exact[1:], strict=True):
        assert mine is not None
        assert mine.dtype == torch.bfloat16
        assert (mine - true).norm() < 1.5 * (theirs - true).norm()


def test_huge_logits_stay_finite() -> None:
    hidden_TH, weight_VH, targets_T = problem(dtype=torch.float32)
    value, logprobs_T, entropy_T = head_loss(
        hidden_TH, weight_VH * 1e4, targets_T, lambda logprobs_t, tokens: logprobs_t.sum(), 5
    )
    value.backward()
    assert torch.isfinite(logprobs_T).all()
    assert torch.isfinite(entropy_T).all()
    assert hidden_TH.grad is not None
    assert torch.isfinite(hidden_TH.grad).all()


@pytest.mark.parametrize("tokens", [T, 8 * T])
def test_no_operation_ever_makes_logits_of_more_than_one_chunk(tokens: int) -> None:
    hidden_TH, weight_VH, targets_T = problem(tokens, torch.float32)
    with LogitsWatch() as watch:
        head_loss(hidden_TH, weight_VH, targets_T, row_loss(tokens, torch.float32), 5)[0].backward()
    assert watch.tallest == max(5, H)  # H: the weight itself, transposed


def test_a_frozen_head_gets_no_gradient_and_what_is_below_it_does() -> None:
    hidden_TH, weight_VH, targets_T = problem()
    _, expected, _ = by_autograd(hidden_TH, weight_VH, targets_T, row_loss())
    weight_VH.requires_grad_(False)
    head_loss(hidden_TH, weight_VH, targets_T, row_loss(), 5)[0].backward()
    assert weight_VH.grad is None
    assert hidden_TH.grad is not None
    assert torch.allclose(hidden_TH.grad, expected, rtol=0, atol=1e-12)


def test_an_empty_row_has_loss_and_gradient_zero() -> None:
    hidden_TH, weight_VH, targets_T = problem(0)
    value, logprobs_T, entropy_T = head_loss(hidden_TH, weight_VH, targets_T, row_loss(0), 5)
    value.backward()
    assert value.item() == 0
    assert logprobs_T.shape == entropy_T.shape == (0,)
    assert weight_VH.grad is not None
    assert not weight_VH.grad.any()


def test_only_a_plain_head_whose_weight_is_always_whole_is_fused() -> None:
    class Scaled(nn.Linear):
        pass

    sharded = nn.Linear(H, V, bias=False)
    sharded.weight.ds_id = 7  # as DeepSpeed marks the parameters of ZeRO 3
    assert is_fusable(nn.Linear(H, V, bias=False))
    assert not any(map(is_fusable, (nn.Linear(H, V), Scaled(H, V, bias=False), sharded)))
