"""The policy loss: clips worked by hand, the float64 oracle, finite differences, and sums that do not depend
on the packing.
"""

import pickle
from dataclasses import astuple
from math import exp, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynalign.learner.loss import (
    Aggregation,
    LossStatistics,
    grpo_loss,
    importance_weights,
    kl_k2_loss,
    kl_k3,
    token_weights,
)
from dynalign.learner.rows.packing import pack
from tests.worlds import oracle
from tests.worlds.loss_tokens import doubles, random_tokens

AGGREGATIONS: tuple[Aggregation, ...] = ("token_mean", "sequence_mean", "fixed_length")
LOW, HIGH = 0.2, 0.28
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=8)
seeds = st.integers(0, 2**32 - 1)
unhurried = settings(deadline=None, max_examples=50)  # the first call into autograd takes seconds


def one_token(ratio: float, advantage: float) -> tuple[float, float]:
    """Loss and gradient of a single token of weight 1 with π / π_old = ratio."""
    logprob = doubles(log(ratio)).requires_grad_()
    loss = grpo_loss(logprob, doubles(0.0), doubles(advantage), doubles(1.0), LOW, HIGH)
    loss.backward()
    assert logprob.grad is not None
    return loss.item(), logprob.grad.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.0, 2.0, -2.0, -2.0),  # on policy: the plain policy gradient
        (1.1, 2.0, -2.2, -2.2),  # inside the range nothing is clipped
        (1.5, 2.0, -2.56, 0.0),  # good and already likelier by more than 28 %: enough
        (0.5, 2.0, -1.0, -1.0),  # good and less likely: always pulled back up
        (0.5, -2.0, 1.6, 0.0),  # bad and already less likely by more than 20 %: enough
        (1.5, -2.0, 3.0, 3.0),  # bad and likelier: always pushed back down
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_the_clip_worked_by_hand(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    assert one_token(ratio, advantage) == pytest.approx((loss, gradient))


def test_weights_worked_by_hand() -> None:
    # Two sequences of 1 and 3 tokens: 4 tokens in all; cut at 10.
    assert token_weights([1, 3], "token_mean", 10) == [1 / 4, 1 / 4]
    assert token_weights([1, 3], "sequence_mean", 10) == [1 / 2, 1 / 6]
    assert token_weights([1, 3], "fixed_length", 10) == [1 / 20, 1 / 20]


@unhurried
@given(lengths, seeds, st.sampled_from(AGGREGATIONS))
def test_weights_make_a_sum_of_the_mean_that_each_aggregation_names(
    lengths_N: list[int], seed: int, how: Aggregation
) -> None:
    terms_N_T = [part.tolist() for part in random_tokens(seed, sum(lengths_N))["new"].split(lengths_N)]
    weights_N = token_weights(lengths_N, how, 16)
    summed = sum(weight * sum(terms) for weight, terms in zip(weights_N, terms_N_T, strict=True))
    assert summed == pytest.approx(oracle.aggregate(terms_N_T, how, 16))


def test_an_empty_sequence_counts_as_a_sequence_and_adds_nothing() -> None:
    assert token_weights([2, 0], "sequence_mean", 10)[0] == 1 / 4
    assert token_weights([2, 0], "token_mean", 10)[0] == 1 / 2


@pytest.mark.parametrize("lengths_N", [[], [0, 0], [3, -1]])
def test_a_step_without_tokens_is_refused(lengths_N: list[int]) -> None:
    with pytest.raises(ValueError, match="needs completion tokens"):
        token_weights(lengths_N, "token_mean", 10)


@unhurried
@given(seeds, st.integers(1, 30), st.floats(0.01, 0.9), st.floats(0.01, 2.0))
def test_loss_and_gradient_agree_with_the_oracle(seed: int, size: int, low: float, high: float) -> None:
    tokens = random_tokens(seed, size)
    logprobs_T = tokens["new"].requires_grad_()
    rest = tokens["old"], tokens["advantages"], tokens["weights"]
    loss = grpo_loss(logprobs_T, *rest, low, high, tokens["importance"])
    (gradient_T,) = torch.autograd.grad(loss, logprobs_T)
    arrays = [part.detach().numpy() for part in (logprobs_T, *rest)]
    importance_T = tokens["importance"].numpy()
    assert loss.item() == pytest.approx(oracle.policy_loss(*arrays, low, high, importance_T), abs=1e-10)
    np.testing.assert_allclose(
        gradient_T, oracle.policy_gradient(*arrays, low, high, importance_T), rtol=0, atol=1e-10
    )


@unhurried
@given(seeds, st.integers(1, 6))
def test_the_gradient_is_the_difference_quotient_of_the_oracles_loss(seed: int, size: int) -> None:
    tokens = random_tokens(seed, size)
    logprobs_T = tokens["new"].requires_grad_()
    rest = tokens["old"], tokens["advantages"], tokens["weights"]
    (gradient_T,) = torch.autograd.grad(grpo_loss(logprobs_T, *rest, LOW, HIGH), logprobs_T)
    new_T, arrays, step = logprobs_T.detach().numpy(), [part.numpy() for part in rest], 1e-6
    for t in range(size):
        above, below = (
            oracle.policy_loss(new_T + sign * step * np.eye(size)[t], *arrays, LOW, HIGH, np.ones(size))
            for sign in (1, -1)
        )
        assert gradient_T[t].item() == pytest.approx((above - below) / (2 * step), abs=1e-8)


@unhurried
@given(seeds)
def test_on_policy_the_gradient_is_the_plain_policy_gradient_and_the_clip_is_idle(seed: int) -> None:
    tokens = random_tokens(seed, 20)
    logprobs_T = tokens["new"].requires_grad_()
    loss = grpo_loss(logprobs_T, logprobs_T, tokens["advantages"], tokens["weights"], LOW, HIGH)
    (gradient_T,) = torch.autograd.grad(loss, logprobs_T)
    np.testing.assert_allclose(gradient_T, -tokens["weights"] * tokens["advantages"], rtol=1e-12, atol=0)
    statistics = LossStatistics.of(logprobs_T, logprobs_T, tokens["advantages"], LOW, HIGH).finish()
    assert statistics == {
        "ratio_mean": 1.0,
        "ratio_max": 1.0,
        "clip_low_fraction": 0.0,
        "clip_high_fraction": 0.0,
        "effective_sample_size": 1.0,
    }


def test_masking_a_token_leaves_the_gradient_of_all_others_as_it_was() -> None:
    tokens = random_tokens(0, 10)
    logprobs_T = tokens["new"].requires_grad_()
    gradients = []
    for weights_T in (tokens["weights"], tokens["weights"].index_fill(0, torch.tensor([3]), 0.0)):
        loss = grpo_loss(logprobs_T, tokens["old"], tokens["advantages"], weights_T, LOW, HIGH)
        gradients += torch.autograd.grad(loss, logprobs_T)
    others = torch.arange(10) != 3
    np.testing.assert_allclose(gradients[1][others], gradients[0][others], rtol=0, atol=0)
    assert gradients[1][3] == 0.0


def policy_losses(
    table_VV: Tensor, rows: list[list[int]], lengths_N: list[int], how: Aggregation, seed: int
) -> list[Tensor]:
    """One loss per row of a bigram policy, whose parameters are shared by all tokens, on data that `seed`
    alone decides.
    """
    rng = np.random.default_rng(seed)
    data = [
        (rng.integers(5, size=n), rng.integers(5, size=n), rng.normal(0, 0.3, n), rng.normal())
        for n in lengths_N
    ]
    weights_N = token_weights(lengths_N, how, 12)
    losses = []
    for row in rows:
        pieces = [
            (table_VV.flatten()[:0],) * 4
        ]  # an empty row is part of the graph, as a dummy micro-batch is
        for sequence in row:
            previous_T, chosen_T, drift_T, advantage = data[sequence]
            logprobs_T = table_VV.log_softmax(-1)[previous_T, chosen_T]
            ones_T = torch.ones_like(logprobs_T)
            old_T = logprobs_T.detach() - torch.from_numpy(drift_T)
            pieces.append((logprobs_T, old_T, ones_T * advantage, ones_T * weights_N[sequence]))
        vectors = [torch.cat(parts) for parts in zip(*pieces, strict=True)]
        losses.append(grpo_loss(*vectors, LOW, HIGH) + 0.1 * kl_k2_loss(vectors[0], vectors[1], vectors[3]))
    return losses


@unhurried
@given(lengths, seeds, st.sampled_from(AGGREGATIONS), st.integers(1, 3), st.integers(12, 40))
def test_two_ranks_many_rows_and_one_row_have_the_same_loss_and_gradient(
    lengths_N: list[int], seed: int, how: Aggregation, ranks: int, token_budget: int
) -> None:
    table_VV = torch.from_numpy(np.random.default_rng(seed).normal(size=(5, 5))).requires_grad_()
    (whole,) = policy_losses(table_VV, [list(range(len(lengths_N)))], lengths_N, how, seed)
    (whole_gradient,) = torch.autograd.grad(whole, table_VV)

    total, gradient = 0.0, torch.zeros_like(table_VV)
    for rows in pack(lengths_N, token_budget, ranks):
        for loss in policy_losses(table_VV, rows, lengths_N, how, seed):
            total += loss.item()
            gradient += torch.autograd.grad(loss, table_VV)[0]
    assert total == pytest.approx(whole.item(), abs=1e-12)
    np.testing.assert_allclose(gradient, whole_gradient, rtol=0, atol=1e-12)


@unhurried
@given(seeds, st.integers(1, 30))
def test_the_kl_pieces_agree_with_the_oracle(seed: int, size: int) -> None:
    tokens = random_tokens(seed, size)
    logprobs_T = tokens["new"].requires_grad_()
    loss = kl_k2_loss(logprobs_T, tokens["reference"], tokens["weights"])
    (gradient_T,) = torch.autograd.grad(loss, logprobs_T)
    arrays = logprobs_T.detach().numpy(), tokens["reference"].numpy()
    weights_T = tokens["weights"].numpy()
    assert loss.item() == pytest.approx(oracle.k2_loss(*arrays, weights_T), abs=1e-10)
    np.testing.assert_allclose(gradient_T, oracle.k2_gradient(*arrays, weights_T), rtol=0, atol=1e-10)
    k3_T = kl_k3(logprobs_T, tokens["reference"])
    np.testing.assert_allclose(k3_T, oracle.k3(*arrays), rtol=0, atol=1e-10)
    assert not k3_T.requires_grad
    assert (k3_T >= 0).all()


def test_k3_has_the_value_of_the_kl_and_k2_its_gradient_and_not_the_other_way_round() -> None:
    """Exact expectations over a vocabulary of six: no sampling, so that equal means equal."""
    torch.manual_seed(0)
    logits_V, reference_V = (
        torch.randn(6, dtype=torch.float64).requires_grad_(),
        torch.randn(6, dtype=torch.float64).log_softmax(-1),
    )
    logprobs_V = logits_V.log_softmax(-1)
    probs_V = logprobs_V.exp().detach()
    kl = (logprobs_V.exp() * (logprobs_V - reference_V)).sum()
    (kl_gradient,) = torch.autograd.grad(kl, logits_V, retain_graph=True)

    assert (probs_V * kl_k3(logprobs_V, reference_V)).sum().item() == pytest.approx(kl.item(), abs=1e-12)
    k2 = kl_k2_loss(logprobs_V, reference_V, probs_V)
    (k2_gradient,) = torch.autograd.grad(k2, logits_V, retain_graph=True)
    np.testing.assert_allclose(k2_gradient, kl_gradient, rtol=0, atol=1e-12)

    assert abs(k2.item() - kl.item()) > 1e-3
    k3 = (probs_V * ((reference_V - logprobs_V).exp() - 1 - (reference_V - logprobs_V))).sum()
    (k3_gradient,) = torch.autograd.grad(k3, logits_V)
    assert (k3_gradient - kl_gradient).abs().max() > 1e-3


def test_the_reference_and_the_old_policy_receive_no_gradient() -> None:
    new_T, old_T = doubles(-1.0, -2.0).requires_grad_(), doubles(-1.1, -1.9).requires_grad_()
    ones_T = torch.ones_like(new_T)
    loss = grpo_loss(new_T, old_T, ones_T, ones_T, LOW, HIGH, importance_weights(new_T, old_T)) + kl_k2_loss(
        new_T, old_T, ones_T
    )
    loss.backward()
    assert old_T.grad is None
    # -w·ρ + (log π - log π_ref), w held fixed: exp(0.1)² and exp(-0.1)²
    assert new_T.grad is not None
    assert new_T.grad.tolist() == pytest.approx([-exp(0.2) + 0.1, -exp(-0.2) - 0.1])


def test_importance_weights_are_truncated_from_above_only() -> None:
    weights_T = importance_weights(
        doubles(log(0.5), log(0.2), 0.0, -1.0, 900.0), doubles(log(0.4), log(0.8), -5.0, -1.0, 0.0)
    )
    assert weights_T.tolist() == pytest.approx([1.25, 0.25, 2.0, 1.0, 2.0])
    assert importance_weights(doubles(1.0), doubles(0.0), cap=3.0).item() == pytest.approx(exp(1))


def test_statistics_worked_by_hand() -> None:
    # Ratios 0.5 (bad: clipped low), 0.5 (good: not), 1.5 (good: clipped high), 1.5 (bad: not)
    ratios_T, advantages_T = doubles(0.5, 0.5, 1.5, 1.5), doubles(-1, 1, 1, -1)
    statistics = LossStatistics.of(ratios_T.log(), doubles(0, 0, 0, 0), advantages_T, LOW, HIGH).finish()
    assert statistics["ratio_mean"] == pytest.approx(1.0)
    assert statistics["ratio_max"] == pytest.approx(1.5)
    assert (statistics["clip_low_fraction"], statistics["clip_high_fraction"]) == (0.25, 0.25)
    assert statistics["effective_sample_size"] == pytest.approx(
        4**2 / 5 / 4
    )  # (Σ)² = 16, Σ² = 0.25 + 0.25 + 2.25 + 2.25


def test_the_effective_sample_size_sees_the_age_correction() -> None:
    ones_T = doubles(1, 1)
    statistics = LossStatistics.of(
        ones_T.log(), ones_T.log(), ones_T, LOW, HIGH, importance_T=doubles(1, 2)
    ).finish()
    assert statistics["effective_sample_size"] == pytest.approx(9 / 5 / 2)
    assert statistics["ratio_mean"] == 1.0


@unhurried
@given(seeds, st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_statistics_of_rows_merge_to_those_of_the_whole(seed: int, sizes: list[int]) -> None:
    tokens = random_tokens(seed, sum(sizes))
    vectors = tokens["new"], tokens["old"], tokens["advantages"], tokens["importance"]
    merged = LossStatistics()
    for new_T, old_T, advantages_T, importance_T in zip(
        *(vector.split(sizes) for vector in vectors), strict=True
    ):
        merged += LossStatistics.of(new_T, old_T, advantages_T, LOW, HIGH, importance_T)
    whole = LossStatistics.of(*vectors[:3], LOW, HIGH, vectors[3])
    assert astuple(merged) == pytest.approx(astuple(whole))


def test_statistics_agree_with_the_gradient_about_what_is_clipped() -> None:
    tokens = random_tokens(7, 200)
    logprobs_T = tokens["new"].requires_grad_()
    loss = grpo_loss(logprobs_T, tokens["old"], tokens["advantages"], torch.ones(200), LOW, HIGH)
    (gradient_T,) = torch.autograd.grad(loss, logprobs_T)
    statistics = LossStatistics.of(logprobs_T, tokens["old"], tokens["advantages"], LOW, HIGH)
    assert 0 < statistics.clip_low_tokens < statistics.tokens
    assert statistics.clip_low_tokens + statistics.clip_high_tokens == (gradient_T == 0).sum()


def test_statistics_travel_between_ranks_and_are_none_without_tokens() -> None:
    statistics = LossStatistics.of(doubles(-1.0), doubles(-1.2), doubles(1.0), LOW, HIGH)
    assert LossStatistics(*astuple(statistics)) == pickle.loads(pickle.dumps(statistics)) == statistics
    assert set(LossStatistics().finish()) == set(statistics.finish())
    assert set(LossStatistics().finish().values()) == {None}
