"""Agreement with TRL's GRPO loss: the table in `golden/grpo_loss.json` (8 sequences × 16 tokens, 24 cases,
losses and gradients).

The table was computed in float32 and is compared in float64, so what differs is the table's own rounding:
float32 keeps 6e-8 of a term; losses are sums of terms of order 0.1 to 1 (seen: 4.4e-8, allowed: 1e-7),
gradients single products of order 0.01 (seen: 5.0e-9, allowed: 1e-8).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynalign.learner.loss import Aggregation, grpo_loss, importance_weights, kl_k2_loss, kl_k3, token_weights
from tests.worlds import oracle

TABLE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "grpo_loss.json").read_text())
MASK_BT = torch.tensor(TABLE["mask"], dtype=torch.bool)
LENGTHS_B = MASK_BT.sum(1).tolist()
AGGREGATIONS: dict[str, Aggregation] = {
    "grpo": "sequence_mean",
    "dr_grpo": "fixed_length",
    "dapo": "token_mean",
    "bnpo": "token_mean",  # differs from dapo only over several processes
}


def flat(name: str) -> torch.Tensor:
    """The completion tokens' values, padding left out."""
    return torch.tensor(TABLE[name], dtype=torch.float64)[MASK_BT]


def repeated(values_B: list[float]) -> torch.Tensor:
    return torch.tensor(values_B, dtype=torch.float64).repeat_interleave(torch.tensor(LENGTHS_B))


def importance(case: dict[str, Any]) -> torch.Tensor | None:
    """TRL's variants from our one function: per token, or on the log-ratios summed over each sequence."""
    how, cap = case["importance"], case["importance_cap"]
    if how is None:
        return None
    old_T, sampled_T = flat("old_logprobs"), flat("sampled_logprobs")
    if how == "token_truncate":
        return importance_weights(old_T, sampled_T, cap)
    sums_B = [torch.stack([part.sum() for part in whole.split(LENGTHS_B)]) for whole in (old_T, sampled_T)]
    ratio_B = importance_weights(*sums_B, cap=cap if how == "sequence_truncate" else float("inf"))
    return repeated(
        torch.where(ratio_B > cap, 0.0, ratio_B).tolist() if how == "sequence_mask" else ratio_B.tolist()
    )


def name(case: dict[str, Any]) -> str:
    return f"{case['loss_type']}-kl{case['beta']}-clip{case['epsilon_high']}-{case['importance']}"


def test_the_table_has_every_case() -> None:
    assert len(TABLE["cases"]) == 24
    assert {case["loss_type"] for case in TABLE["cases"]} == set(AGGREGATIONS)


@pytest.mark.parametrize("case", TABLE["cases"], ids=name)
def test_loss_and_gradient_agree_with_trl(case: dict[str, Any]) -> None:
    """TRL adds β·ρ·k3 per token.

    Its value is ours of `kl_k3`, weighted by ρ; its gradient, ρ·(k3 + 1 - r) = ρ·(log π - log π_ref), is that
    of our `kl_k2_loss`, weighted by ρ: the two differ as losses and agree as gradients.
    """
    logprobs_T = flat("logprobs").requires_grad_()
    old_T, reference_T = flat("old_logprobs"), flat("reference_logprobs")
    weights_T = repeated(
        token_weights(LENGTHS_B, AGGREGATIONS[case["loss_type"]], TABLE["max_completion_length"])
    )
    policy_loss = grpo_loss(
        logprobs_T,
        old_T,
        repeated(TABLE["advantages"]),
        weights_T,
        case["epsilon_low"],
        case["epsilon_high"],
        importance(case),
    )
    ratio_T = (logprobs_T - old_T).exp().detach()
    kl = (weights_T * ratio_T * kl_k3(logprobs_T, reference_T)).sum()
    assert (policy_loss + case["beta"] * kl).item() == pytest.approx(case["loss"], abs=1e-7)

    (policy_loss + case["beta"] * kl_k2_loss(logprobs_T, reference_T, weights_T * ratio_T)).backward()
    expected_BT = torch.tensor(case["grad"], dtype=torch.float64)
    np.testing.assert_allclose(logprobs_T.grad, expected_BT[MASK_BT], rtol=0, atol=1e-8)
    assert not expected_BT[~MASK_BT].any()


@pytest.mark.parametrize(
    "case", [case for case in TABLE["cases"] if case["beta"] == 0 and not case["importance"]], ids=name
)
def test_the_oracle_agrees_with_trl_as_well(case: dict[str, Any]) -> None:
    logprobs_T, old_T = flat("logprobs").numpy(), flat("old_logprobs").numpy()
    advantages_T, ones_T = repeated(TABLE["advantages"]).numpy(), np.ones(sum(LENGTHS_B))
    clips = case["epsilon_low"], case["epsilon_high"]
    vectors = (logprobs_T, old_T, advantages_T, ones_T)
    terms_T = [
        oracle.policy_loss(*(part[t : t + 1] for part in vectors), *clips, ones_T[:1])
        for t in range(len(ones_T))
    ]
    terms_B_T = [part.tolist() for part in torch.tensor(terms_T).split(LENGTHS_B)]
    loss = oracle.aggregate(terms_B_T, AGGREGATIONS[case["loss_type"]], TABLE["max_completion_length"])
    assert loss == pytest.approx(case["loss"], abs=1e-7)
