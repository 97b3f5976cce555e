"""Chunked log-probabilities: equal to the full log-softmax in value and gradient, and never more logits than
one chunk.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dynalign.learner.head.logprobs import completion_logprobs
from tests.worlds import oracle

T, H, V = 23, 6, 37


def problem(tokens: int = T, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden_TH = torch.randn(tokens, H, generator=generator, dtype=dtype).requires_grad_()
    weight_VH = torch.randn(V, H, generator=generator, dtype=dtype).requires_grad_()
    return hidden_TH, weight_VH, torch.randint(V, (tokens,), generator=generator)


def linear(weight_VH: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda hidden_TH: torch.nn.functional.linear(hidden_TH, weight_VH)


@pytest.mark.parametrize("chunk_tokens", [1, 5, T - 1, T, 1000])
def test_values_and_gradients_are_those_of_the_full_log_softmax(chunk_tokens: int) -> None:
    hidden_TH, weight_VH, targets_T = problem()
    logprobs_T, entropy_T = completion_logprobs(hidden_TH, linear(weight_VH), targets_T, chunk_tokens)
    upstream_T = torch.linspace(-1, 2, T, dtype=torch.float64)
    (logprobs_T * upstream_T).sum().backward()

    hidden, weight, targets = hidden_TH.detach().numpy(), weight_VH.detach().numpy(), targets_T.tolist()
    np.testing.assert_allclose(
        logprobs_T.detach(), oracle.logprobs(hidden @ weight.T, targets), rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(entropy_T, oracle.entropy(hidden @ weight.T), rtol=0, atol=1e-12)
    by_hidden, by_weight = oracle.logprobs_gradient(hidden, weight, targets, upstream_T.numpy())
    assert hidden_TH.grad is not None
    assert weight_VH.grad is not None
    np.testing.assert_allclose(hidden_TH.grad, by_hidden, rtol=0, atol=1e-12)
    np.testing.assert_allclose(weight_VH.grad, by_weight, rtol=0, atol=1e-12)


def test_entropy_carries_no_gradient_and_log_probabilities_carry_one() -> None:
    hidden_TH, weight_VH, targets_T = problem()
    logprobs_T, entropy_T = completion_logprobs(hidden_TH, linear(weight_VH), targets_T, 5)
    assert logprobs_T.requires_grad
    assert not entropy_T.requires_grad


def test_a_uniform_distribution_has_entropy_log_v() -> None:
    hidden_TH, _, targets_T = problem()
    logprobs_T, entropy_T = completion_logprobs(hidden_TH, lambda h: h.new_zeros(len(h), V), targets_T, 5)
    assert entropy_T.tolist() == pytest.approx([np.log(V)] * T)
    assert logprobs_T.tolist() == pytest.approx([-np.log(V)] * T)


def test_huge_logits_stay_finite() -> None:
    hidden_TH, weight_VH, targets_T = problem(dtype=torch.float32)
    logprobs_T, entropy_T = completion_logprobs(hidden_TH, linear(weight_VH * 1e4), targets_T, 5)
    logprobs_T.sum().backward()
    assert torch.isfinite(logprobs_T).all()
    assert torch.isfinite(entropy_T).all()
    assert hidden_TH.grad is not None
    assert torch.isfinite(hidden_TH.grad).all()


def test_an_impossible_token_of_the_vocabulary_does_not_spoil_the_entropy() -> None:
    hidden_TH, weight_VH, targets_T = problem()
    blocked = torch.zeros(V, dtype=torch.float64).index_fill(0, torch.tensor([V - 1]), -torch.inf)
    targets_T = targets_T.clamp(max=V - 2)
    logprobs_T, entropy_T = completion_logprobs(hidden_TH, lambda h: h @ weight_VH.T + blocked, targets_T, 5)
    possible_TV = (hidden_TH @ weight_VH.T).detach().numpy()[:, : V - 1]
    np.testing.assert_allclose(
        logprobs_T.detach(), oracle.logprobs(possible_TV, targets_T.tolist()), rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(entropy_T, oracle.entropy(possible_TV), rtol=0, atol=1e-12)


def test_under_bfloat16_autocast_logits_are_reduced_in_float32() -> None:
    hidden_TH, weight_VH, targets_T = problem(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logprobs_T, entropy_T = completion_logprobs(hidden_TH, linear(weight_VH), targets_T, 5)
    assert logprobs_T.dtype == entropy_T.dtype == torch.float32
    # The head's product is rounded to bfloat16; everything after it is not.
    logits_TV = (
        torch.nn.functional.linear(hidden_TH.bfloat16(), weight_VH.bfloat16()).detach().double().numpy()
    )
    np.testing.assert_allclose(
        logprobs_T.detach(), oracle.logprobs(logits_TV, targets_T.tolist()), rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(entropy_T, oracle.entropy(logits_TV), rtol=0, atol=1e-5)
    logprobs_T.sum().backward()
    by_hidden, _ = oracle.logprobs_gradient(
        hidden_TH.detach().double().numpy(),
        weight_VH.detach().double().numpy(),
        targets_T.tolist(),
        np.ones(T),
    )
    assert hidden_TH.grad is not None
    assert hidden_TH.grad.dtype == torch.float32
    np.testing.assert_allclose(hidden_TH.grad, by_hidden, atol=0.05)  # bfloat16 keeps 8 bits


class LogitsWatch(TorchDispatchMode):
    """Records the tallest tensor with a vocabulary axis that any operation makes, forward or backward."""

    tallest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.dim() == 2 and tensor.shape[1] == V:
                self.tallest = max(self.tallest, tensor.shape[0])
        return result


@pytest.mark.parametrize("tokens", [T, 8 * T])
def test_no_operation_ever_makes_logits_of_more_than_one_chunk(tokens: int) -> None:
    hidden_TH, weight_VH, targets_T = problem(tokens, torch.float32)
    with LogitsWatch() as watch:
        completion_logprobs(hidden_TH, linear(weight_VH), targets_T, 5)[0].sum().backward()
    assert watch.tallest == max(5, H)  # H: the weight itself, transposed


def test_no_logits_are_kept_from_the_forward_pass_for_the_backward_pass() -> None:
    hidden_TH, weight_VH, targets_T = problem(dtype=torch.float32)
    kept: list[int] = []

    def record(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() if tensor.shape[-1:] == (V,) else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        completion_logprobs(hidden_TH, linear(weight_VH), targets_T, 5)
        assert max(kept) == 0
        linear(weight_VH)(hidden_TH).log_softmax(-1)
        assert max(kept) == T * V  # the hook does see logits where they are kept


@pytest.mark.parametrize(
    ("tokens", "min_chunks", "calls"), [(11, 1, 3), (11, 5, 5), (10, 1, 2), (0, 1, 1), (0, 3, 3)]
)
def test_the_head_is_entered_equally_often_by_full_and_empty_rows(
    tokens: int, min_chunks: int, calls: int
) -> None:
    hidden_TH, weight_VH, targets_T = problem(tokens)
    entered: list[int] = []

    def head(hidden_tH: Tensor) -> Tensor:
        entered.append(len(hidden_tH))
        return linear(weight_VH)(hidden_tH)

    logprobs_T, entropy_T = completion_logprobs(hidden_TH, head, targets_T, 5, min_chunks)
    assert len(entered) == calls
    logprobs_T.sum().backward()
    assert len(entered) == 2 * calls  # made again in the backward pass, also where there is nothing to make
    assert sum(entered) == 2 * tokens
    assert logprobs_T.shape == entropy_T.shape == (tokens,)
    assert weight_VH.grad is not None
    assert torch.isfinite(weight_VH.grad).all()


def test_without_gradient_the_head_is_entered_once_per_chunk() -> None:
    hidden_TH, weight_VH, targets_T = problem()
    with torch.no_grad():
        logprobs_T, _ = completion_logprobs(hidden_TH, linear(weight_VH), targets_T, 5)
    assert not logprobs_T.requires_grad
    np.testing.assert_allclose(
        logprobs_T,
        oracle.logprobs((hidden_TH @ weight_VH.T).detach().numpy(), targets_T.tolist()),
        rtol=0,
        atol=1e-12,
    )
