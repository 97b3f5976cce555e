"""The taper and the distillation term: by hand, against the float64 oracle, and in expectation."""

from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign.learner.loss import RowLoss, context_taper, distillation_loss
from tests.worlds import oracle
from tests.worlds.loss_tokens import doubles, random_tokens

LOW, HIGH = 0.2, 0.28
unhurried = settings(deadline=None, max_examples=50)  # the first call into autograd takes seconds


def test_the_taper_worked_by_hand() -> None:
    # bad and half as likely without the prompt; bad and likelier; good; no advantage
    taper_T = context_taper(
        doubles(log(0.1), log(0.4), log(0.1), log(0.1)), doubles(*[log(0.2)] * 4), doubles(-1, -1, 1, 0)
    )
    assert taper_T.tolist() == pytest.approx([0.5, 1.0, 1.0, 1.0])
    assert context_taper(doubles(-900.0), doubles(900.0), doubles(-1)).item() == 0.0
    assert context_taper(doubles(900.0), doubles(-900.0), doubles(-1)).item() == 1.0


@unhurried
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 30), st.booleans(), st.sampled_from([0.0, 0.3]), st.booleans()
)
def test_taper_and_distillation_are_what_their_formulas_say_and_no_part_of_the_ratio(
    seed: int, size: int, tapers: bool, distill_coef: float, corrects: bool
) -> None:
    tokens = random_tokens(seed, size)
    sampling_T = tokens["old"] + torch.from_numpy(np.random.default_rng(seed).normal(0, 0.5, size))
    behaviour_T = tokens["reference"]
    loss = RowLoss(
        tokens["advantages"], tokens["weights"], LOW, HIGH, old_logprobs_T=tokens["old"],
        behaviour_logprobs_T=behaviour_T if corrects else None, sampling_logprobs_T=sampling_T,
        tapers=tapers, distill_coef=distill_coef,
    )  # fmt: skip
    logprobs_T = tokens["new"].requires_grad_()
    value = loss(logprobs_T)
    (gradient_T,) = torch.autograd.grad(value, logprobs_T)

    new_T, old_T, advantages_T, weights_T, a_T, b_T = (
        part.detach().numpy()
        for part in (
            logprobs_T,
            tokens["old"],
            tokens["advantages"],
            tokens["weights"],
            sampling_T,
            behaviour_T,
        )
    )
    factors_T = np.minimum(2.0, np.exp(old_T - b_T)) if corrects else np.ones(size)
    if tapers:
        factors_T = factors_T * oracle.taper(old_T, a_T, advantages_T)
    expected = oracle.policy_loss(new_T, old_T, advantages_T, weights_T, LOW, HIGH, factors_T)
    expected += distill_coef * sum(w * (a - d) for w, a, d in zip(weights_T, a_T, new_T, strict=True))
    expected_T = oracle.policy_gradient(new_T, old_T, advantages_T, weights_T, LOW, HIGH, factors_T)
    assert value.item() == pytest.approx(expected, abs=1e-10)
    np.testing.assert_allclose(gradient_T, expected_T - distill_coef * weights_T, rtol=0, atol=1e-10)
    importance_T = loss.importance(loss.old(logprobs_T))
    assert (importance_T is None) == (not corrects)  # the statistics of the ratio do not see the taper


def test_the_loss_of_slices_adds_up_with_taper_and_distillation_too() -> None:
    tokens = random_tokens(3, 10)
    loss = RowLoss(
        tokens["advantages"], tokens["weights"], LOW, HIGH, old_logprobs_T=tokens["old"],
        sampling_logprobs_T=tokens["reference"], tapers=True, distill_coef=0.5,
    )  # fmt: skip
    parts = [loss(tokens["new"][part], part).item() for part in (slice(0, 4), slice(4, 10))]
    assert sum(parts) == pytest.approx(loss(tokens["new"]).item(), abs=1e-12)


def test_distillation_is_the_kl_from_the_prompted_to_the_plain_policy_in_value_and_gradient() -> None:
    """Exact expectations over a vocabulary of six, as for the KL term."""
    torch.manual_seed(1)
    logits_V = torch.randn(6, dtype=torch.float64).requires_grad_()
    teacher_V = torch.randn(6, dtype=torch.float64).log_softmax(-1)
    logprobs_V = logits_V.log_softmax(-1)
    kl = (teacher_V.exp() * (teacher_V - logprobs_V)).sum()
    (kl_gradient,) = torch.autograd.grad(kl, logits_V, retain_graph=True)
    loss = distillation_loss(logprobs_V, teacher_V, teacher_V.exp())
    (gradient,) = torch.autograd.grad(loss, logits_V)
    assert loss.item() == pytest.approx(kl.item(), abs=1e-12)
    np.testing.assert_allclose(gradient, kl_gradient, rtol=0, atol=1e-12)
