"""The clipped policy loss of GRPO over a flat axis of completion tokens, its KL term, and what to report about both.

Every function sees only per-token vectors of one row (micro-batch). The aggregation over the whole optimizer step is in
the weights alone, which every rank computes from all lengths: so losses and gradients of rows, micro-batches and ranks
add up (a sum, not a mean) to those of the whole, however the tokens were packed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["token_mean", "sequence_mean", "fixed_length"]


def token_weights(lengths_N: Sequence[int], how: Aggregation, max_completion_tokens: int) -> list[float]:
    """The weight that each token of a sequence has in the loss, one value per sequence.

    :param lengths_N: completion lengths (tokens) of *all* sequences of the optimizer step, over all ranks; masking a
        token elsewhere changes nothing here.
    :param how: ``token_mean``: every token weighs the same (DAPO, arXiv 2503.14476); ``sequence_mean``: every sequence does
        (GRPO); ``fixed_length``: a sum over tokens divided by a constant, free of length bias (Dr. GRPO).
    :param max_completion_tokens: the constant of ``fixed_length``.
    :raises ValueError: there are no tokens, or a length is negative.
    """
    if min(lengths_N, default=0) < 0 or not (tokens := sum(lengths_N)):
        raise ValueError(f"an optimizer step needs completion tokens; got the lengths {list(lengths_N)}")
    if how == "token_mean":
        return [1 / tokens] * len(lengths_N)
    if how == "fixed_length":
        return [1 / (len(lengths_N) * max_completion_tokens)] * len(lengths_N)
    return [1 / (len(lengths_N) * max(length, 1)) for length in lengths_N]


def importance_weights(old_logprobs_T: Tensor, behaviour_logprobs_T: Tensor, cap: float = 2.0) -> Tensor:
    """w = min(cap, π_old / π_behaviour) per token, without gradient: truncated importance sampling.

    Corrects for age (and for the engine's arithmetic). Both arguments are log-probabilities (nats) in the *same* learning
    context; the gap to the sampling context is what is being learned and is no business of w.
    """
    return (old_logprobs_T - behaviour_logprobs_T).exp().clamp(max=cap).detach()


def grpo_loss(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    advantages_T: Tensor,
    weights_T: Tensor,
    clip_low: float,
    clip_high: float,
    importance_T: Tensor | None = None,
) -> Tensor:
    """-Σ weight · w · min(ρA, clip(ρ, 1 - clip_low, 1 + clip_high)·A), with ρ = exp(log π - log π_old) per token; a scalar.

    :param logprobs_T: log π(y_t | x, y_<t), nats, with gradient.
    :param old_logprobs_T: the same at the start of the step; its gradient, if it has one, is cut.
    :param advantages_T: the sequence's advantage, repeated over its tokens.
    :param weights_T: `token_weights`, repeated over the tokens; 0 masks a token.
    :param importance_T: w of `importance_weights`; None is 1.
    """
    ratio_T = (logprobs_T - old_logprobs_T.detach()).exp()
    clipped_T = ratio_T.clamp(1 - clip_low, 1 + clip_high)
    objective_T = torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T)
    if importance_T is not None:
        objective_T = importance_T * objective_T
    return -(weights_T * objective_T).sum()


def kl_k2_loss(logprobs_T: Tensor, reference_logprobs_T: Tensor, weights_T: Tensor) -> Tensor:
    """Σ weight · ½(log π - log π_ref)², a scalar whose gradient, on the policy's own samples, is that of KL(π ‖ π_ref).

    Its value is not the KL: report `kl_k3`, which has the right value and, as a loss, the wrong gradient. On samples of an
    older policy the gradient is right with the weights multiplied by the (detached) ratio π / π_older.
    """
    return (weights_T * (logprobs_T - reference_logprobs_T.detach()).square()).sum() / 2


@torch.no_grad()
def kl_k3(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """r - 1 - log r with r = π_ref / π, per token in nats, without gradient: an unbiased estimate of KL(π ‖ π_ref), never
    negative (Schulman, "Approximating KL divergence", 2020)."""
    log_ratio_T = reference_logprobs_T - logprobs_T
    return torch.expm1(log_ratio_T) - log_ratio_T


@dataclass(frozen=True)
class RowLoss:
    """The loss of one row as a function of its log-probabilities. It is a sum over tokens, so it can be had in parts: `tokens` says
    which ones an argument is about.

    old_logprobs_T: None where the row's own forward is the start of the step. behaviour_logprobs_T: NaN where none was recorded; None
    without correction. reference_logprobs_T: None without KL term.
    """

    advantages_T: Tensor
    weights_T: Tensor
    clip_low: float
    clip_high: float
    kl_coef: float = 0.0
    old_logprobs_T: Tensor | None = None
    behaviour_logprobs_T: Tensor | None = None
    reference_logprobs_T: Tensor | None = None

    def __call__(self, logprobs_t: Tensor, tokens: slice = slice(None)) -> Tensor:
        """A scalar with the gradient by `logprobs_t`, the log-probabilities of `tokens`."""
        old_t = self.old(logprobs_t, tokens)
        importance_t = self.importance(old_t, tokens)
        advantages_t, weights_t = self.advantages_T[tokens], self.weights_T[tokens]
        loss = grpo_loss(
            logprobs_t, old_t, advantages_t, weights_t, self.clip_low, self.clip_high, importance_t
        )
        if self.reference_logprobs_T is not None:
            loss = loss + self.kl_coef * kl_k2_loss(logprobs_t, self.reference_logprobs_T[tokens], weights_t)
        return loss

    def old(self, logprobs_t: Tensor, tokens: slice = slice(None)) -> Tensor:
        """log π at the start of the step."""
        return logprobs_t.detach() if self.old_logprobs_T is None else self.old_logprobs_T[tokens]

    def importance(self, old_t: Tensor, tokens: slice = slice(None)) -> Tensor | None:
        """`importance_weights`, 1 where no log-probability was recorded; None without correction."""
        if self.behaviour_logprobs_T is None:
            return None
        recorded_t = self.behaviour_logprobs_T[tokens]
        return importance_weights(old_t, torch.where(recorded_t.isnan(), old_t, recorded_t))


@dataclass(frozen=True)
class LossStatistics:
    """What the ratios of some tokens look like, as terms that merge with ``+`` over micro-batches and ranks.

    All fields are floats, so ``dataclasses.astuple`` is the vector to gather and ``LossStatistics(*vector)`` its inverse.
    The default is the neutral element: that of a row without tokens.
    """

    tokens: float = 0.0
    ratio_sum: float = 0.0
    clip_low_tokens: float = 0.0
    clip_high_tokens: float = 0.0
    correction_sum: float = 0.0
    correction_square_sum: float = 0.0
    ratio_max: float = 0.0

    @staticmethod
    @torch.no_grad()
    def of(
        logprobs_T: Tensor,
        old_logprobs_T: Tensor,
        advantages_T: Tensor,
        clip_low: float,
        clip_high: float,
        importance_T: Tensor | None = None,
    ) -> "LossStatistics":
        """The terms of one row; arguments as of `grpo_loss`. A token counts as clipped where the clip stops its gradient."""
        if not logprobs_T.numel():
            return LossStatistics()
        ratio_T = (logprobs_T - old_logprobs_T).double().exp()
        correction_T = ratio_T if importance_T is None else ratio_T * importance_T
        terms = (
            ratio_T.sum(),
            ((ratio_T < 1 - clip_low) & (advantages_T < 0)).sum(),
            ((ratio_T > 1 + clip_high) & (advantages_T > 0)).sum(),
            correction_T.sum(),
            correction_T.square().sum(),
            ratio_T.max(),
        )
        # One transfer: each .item() would wait for the device on its own.
        return LossStatistics(float(logprobs_T.numel()), *torch.stack(terms).tolist())

    def __add__(self, other: "LossStatistics") -> "LossStatistics":
        return LossStatistics(
            self.tokens + other.tokens,
            self.ratio_sum + other.ratio_sum,
            self.clip_low_tokens + other.clip_low_tokens,
            self.clip_high_tokens + other.clip_high_tokens,
            self.correction_sum + other.correction_sum,
            self.correction_square_sum + other.correction_square_sum,
            max(self.ratio_max, other.ratio_max),
        )

    def finish(self) -> dict[str, float | None]:
        """The step's metrics; each None without tokens.

        ``effective_sample_size`` is Kish's (Σ ρw)² / Σ (ρw)², as a fraction of the tokens: 1 on policy.
        """
        if not self.tokens:
            return dict.fromkeys(
                (
                    "ratio_mean",
                    "ratio_max",
                    "clip_low_fraction",
                    "clip_high_fraction",
                    "effective_sample_size",
                )
            )
        return {
            "ratio_mean": self.ratio_sum / self.tokens,
            "ratio_max": self.ratio_max,
            "clip_low_fraction": self.clip_low_tokens / self.tokens,
            "clip_high_fraction": self.clip_high_tokens / self.tokens,
            "effective_sample_size": self.correction_sum**2 / self.correction_square_sum / self.tokens,
        }
