"""A model whose rows are computed in one call of attention each is the model whose rows are not."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dynalign.configs.errors import UserError
from dynalign.configs.sections.learner import LearnerSettings
from dynalign.learner.policy import Policy, load_policy
from dynalign.learner.rows.varlen import VarlenKernel
from dynalign.learner.rows.varlen_reference import reference_varlen
from tests.learner.rows.test_attention import Counted
from tests.learner.test_policy import folder, llama, packed, rows_of
from tests.worlds.one_rank import Learner
from tests.worlds.tiny_models import settings

__all__ = ["folder", "llama"]  # fixtures

LAYERS_WITHOUT_SINKS = {"tied": 2, "untied": 2, "qwen3": 2, "qwen3-moe": 2, "gpt-oss": 0}


def passed(policy: Policy, kernel: VarlenKernel | None) -> tuple[Tensor, list[Tensor]]:
    """Log-probabilities of a row, and the gradient of their weighted sum by each parameter."""
    policy.kernel = kernel
    policy.zero_grad()
    logprobs_T, _ = packed(policy, rows_of()[1][0])
    (logprobs_T * torch.linspace(-1, 1, len(logprobs_T))).sum().backward()
    return logprobs_T.detach(), [each.grad for each in policy.parameters() if each.grad is not None]


def test_one_call_for_a_row_changes_no_log_probability_and_no_gradient(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    policy = load_policy(folder, LearnerSettings(logprob_chunk_tokens=16), torch.float32, 0, probed=False)
    counted = Counted()
    once_T, once = passed(policy, counted)
    apart_T, apart = passed(policy, None)
    assert counted.calls == LAYERS_WITHOUT_SINKS[request.node.callspec.params["folder"]]
    assert torch.allclose(once_T, apart_T, atol=1e-5)
    assert all(
        torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))
        for mine, theirs in zip(once, apart, strict=True)
    )


def test_gradient_checkpointing_computes_the_one_call_again(llama: Path) -> None:
    counted = Counted()
    learner = LearnerSettings(logprob_chunk_tokens=16, gradient_checkpointing=True)
    again = passed(load_policy(llama, learner, torch.float32, 0, probed=False), counted)
    kept = load_policy(llama, LearnerSettings(logprob_chunk_tokens=16), torch.float32, 0, probed=False)
    assert counted.calls == 4, "two layers, forward and again in the backward pass"
    assert all(
        torch.equal(first, second)
        for first, second in zip(again[1], passed(kept, reference_varlen)[1], strict=True)
    )


def test_a_learner_on_a_device_without_the_kernel_does_not_start(llama: Path) -> None:
    with pytest.raises(UserError, match="learner.attention = 'varlen': does not work with torch"):
        Learner(settings(llama, attention="varlen"), llama, 0, 1)
