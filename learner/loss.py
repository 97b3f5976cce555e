"""The clipped policy loss of GRPO over a flat axis of completion tokens, its KL term, and what to report
about both.

Every function takes per-token vectors of one row (micro-batch). Only the weights depend on the whole
optimizer step, and every rank computes them from all lengths. So losses and gradients of rows and ranks add
up (a sum, not a mean) to those of the step, however its tokens are packed. Axes: T completion tokens of a
row, t some of them, N sequences (candidates) of the step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["token_mean", "sequence_mean", "fixed_length"]


def token_weights(lengths_N: Sequence[int], how: Aggregation, max_completion_tokens: int) -> list[float]:
    """Return the weight of each token of a sequence in the loss, one value per sequence.

    lengths_N: completion lengths (tokens) of *all* sequences of the optimizer step, over all ranks. Masked
    tokens count.
    how: ``token_mean`` gives every token the same weight, 1 / Σ lengths (DAPO, arXiv 2503.14476);
    ``sequence_mean`` gives every sequence the same weight, 1 / (N · length) per token (GRPO, arXiv
    2402.03300); ``fixed_length`` divides by a constant, 1 / (N · max_completion_tokens), which removes the
    length bias (Dr. GRPO, arXiv 2503.20783).
    max_completion_tokens: the constant of ``fixed_length``.

    Raises ValueError if there are no tokens, or a length is negative.
    """
    if min(lengths_N, default=0) < 0 or not (tokens := sum(lengths_N)):
        raise ValueError(f"an optimizer step needs completion tokens; got the lengths {list(lengths_N)}")
    if how == "token_mean":
        return [1 / tokens] * len(lengths_N)
    if how == "fixed_length":
        return [1 / (len(lengths_N) * max_completion_tokens)] * len(lengths_N)
    return [1 / (len(lengths_N) * max(length, 1)) for length in lengths_N]


def importance_weights(old_logprobs_T: Tensor, behaviour_logprobs_T: Tensor, cap: float = 2.0) -> Tensor:
    """Return w = min(cap, π_old / π_behaviour) per token, without gradient: truncated importance sampling
    (Ionides, 2008).

    It corrects for the age of the samples and for the engine's arithmetic. Both arguments are
    log-probabilities (nats) in the *same* learning context: the gap to the sampling context is what training
    should learn, so w must not remove it.
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
    """Return -Σ weight · w · min(ρA, clip(ρ, 1 - clip_low, 1 + clip_high)·A), ρ = exp(log π - log π_old) per
    token; a scalar.

    The clipped objective of PPO (arXiv 1707.06347), with separate bounds (DAPO, arXiv 2503.14476).

    logprobs_T: log π(y_t | x, y_<t), nats, with gradient.
    old_logprobs_T: the same at the start of the step; no gradient flows through it.
    advantages_T: the sequence's advantage, repeated over its tokens.
    weights_T: `token_weights`, repeated over the tokens; 0 masks a token.
    importance_T: w of `importance_weights`, times `context_taper` where that is used; None means 1.
    """
    ratio_T = (logprobs_T - old_logprobs_T.detach()).exp()
    clipped_T = ratio_T.clamp(1 - clip_low, 1 + clip_high)
    objective_T = torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T)
    if importance_T is not None:
        objective_T = importance_T * objective_T
    return -(weights_T * objective_T).sum()


def context_taper(old_logprobs_T: Tensor, sampling_logprobs_T: Tensor, advantages_T: Tensor) -> Tensor:
    """Return min(1, exp(c - a)) for a token with negative advantage, 1 for every other one; no gradient.

    A bad answer to (s, x) that the plain policy would hardly give is hardly pushed down: a push below what is
    unlikely already moves other probabilities instead. An own choice; GRPO has no such factor.

    old_logprobs_T: c = log π(y_t | x, y_<t) at the start of the step, nats.
    sampling_logprobs_T: a = log π(y_t | s, x, y_<t) by the engine when it sampled, nats.
    advantages_T: see `grpo_loss`.
    """
    factor_T = (old_logprobs_T - sampling_logprobs_T).exp().clamp(max=1.0)
    return torch.where(advantages_T < 0, factor_T, torch.ones_like(factor_T)).detach()


def distillation_loss(logprobs_T: Tensor, sampling_logprobs_T: Tensor, weights_T: Tensor) -> Tensor:
    """Return Σ weight · (a - log π); its expectation is KL(π_v(·|s,x) ‖ π(·|x)) along the sampled tokens, in
    value and in gradient.

    Context distillation (Snell et al., "Learning by Distilling Context", arXiv 2209.15189): the teacher π_v
    is the policy with the system prompt, which has sampled y, and the pupil the one without. The gradient is
    E over y ~ π_v of -Σ ∇ log π(y_t | x, y_<t); the teacher has none, so the k1 estimator is a right loss
    here, unlike that of a divergence of which the policy itself is the first argument. Groups that were
    withheld are missing, so the expectation is over the prompts' trained groups. The arguments are those of
    `context_taper` and `grpo_loss`.
    """
    return (weights_T * (sampling_logprobs_T - logprobs_T)).sum()


def kl_k2_loss(logprobs_T: Tensor, reference_logprobs_T: Tensor, weights_T: Tensor) -> Tensor:
    """Return Σ weight · ½(log π - log π_ref)²; on the policy's own samples its gradient is that of KL(π ‖
    π_ref).

    The k2 estimator (Schulman, "Approximating KL divergence", 2020). Its value is not the KL: report `kl_k3`,
    which has the right value but, used as a loss, the wrong gradient. On samples of an older policy the
    gradient is right if the weights are multiplied by the (detached) ratio π / π_older.
    """
    return (weights_T * (logprobs_T - reference_logprobs_T.detach()).square()).sum() / 2


@torch.no_grad()
def kl_k3(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """Return r - 1 - log r with r = π_ref / π, per token in nats, without gradient.

    An unbiased estimate of KL(π ‖ π_ref) that is never negative (Schulman, "Approximating KL divergence",
    2020).
    """
    log_ratio_T = reference_logprobs_T - logprobs_T
    return torch.expm1(log_ratio_T) - log_ratio_T


@dataclass(frozen=True)
class RowLoss:
    """The loss of one row as a function of its log-probabilities.

    The loss is a sum over tokens, so it can be computed for some of them at a time: each method takes
    `tokens`, the slice of the row's T tokens to which its tensors belong.
    """

    advantages_T: Tensor
    """The advantage of each token's sequence."""
    weights_T: Tensor
    """The weight of each token (`token_weights`)."""
    clip_low: float
    """The ratio ρ is clipped below 1 - clip_low."""
    clip_high: float
    """The ratio ρ is clipped above 1 + clip_high."""
    kl_coef: float = 0.0
    """Factor of the KL term."""
    old_logprobs_T: Tensor | None = None
    """log π at the start of the step, nats; None if this forward pass is the start of the step."""
    behaviour_logprobs_T: Tensor | None = None
    """log π of the policy that sampled, nats; NaN for a token without a record. None: no importance
    correction."""
    reference_logprobs_T: Tensor | None = None
    """log π of the initial policy, nats. None: no KL term."""
    sampling_logprobs_T: Tensor | None = None
    """log π(y|s,x) when the tokens were sampled, nats. None: neither taper nor distillation."""
    tapers: bool = False
    """Whether `context_taper` is applied."""
    distill_coef: float = 0.0
    """Factor of `distillation_loss`."""

    def __call__(self, logprobs_t: Tensor, tokens: slice = slice(None)) -> Tensor:
        """Return the loss of `tokens`, a scalar; `logprobs_t` (nats) are their log-probabilities, with
        gradient.
        """
        old_t = self.old(logprobs_t, tokens)
        advantages_t = self.advantages_T[tokens]
        weights_t = self.weights_T[tokens]
        factors_t = self._factors(old_t, advantages_t, tokens)
        loss = grpo_loss(logprobs_t, old_t, advantages_t, weights_t, self.clip_low, self.clip_high, factors_t)
        if self.reference_logprobs_T is not None:
            loss = loss + self.kl_coef * kl_k2_loss(logprobs_t, self.reference_logprobs_T[tokens], weights_t)
        if self.sampling_logprobs_T is not None and self.distill_coef > 0:
            sampling_t = self.sampling_logprobs_T[tokens]
            loss = loss + self.distill_coef * distillation_loss(logprobs_t, sampling_t, weights_t)
        return loss

    def _factors(self, old_t: Tensor, advantages_t: Tensor, tokens: slice) -> Tensor | None:
        """Return what multiplies the clipped objective beside the weights; None for 1."""
        importance_t = self.importance(old_t, tokens)
        if self.sampling_logprobs_T is None or not self.tapers:
            return importance_t
        taper_t = context_taper(old_t, self.sampling_logprobs_T[tokens], advantages_t)
        return taper_t if importance_t is None else importance_t * taper_t

    def old(self, logprobs_t: Tensor, tokens: slice = slice(None)) -> Tensor:
        """Return log π at the start of the step, nats, without gradient."""
        return logprobs_t.detach() if self.old_logprobs_T is None else self.old_logprobs_T[tokens]

    def importance(self, old_t: Tensor, tokens: slice = slice(None)) -> Tensor | None:
        """Return `importance_weights`, 1 for a token without a record; None without correction."""
        if self.behaviour_logprobs_T is None:
            return None
        recorded_t = self.behaviour_logprobs_T[tokens]
        return importance_weights(old_t, torch.where(recorded_t.isnan(), old_t, recorded_t))


@dataclass(frozen=True)
class LossStatistics:
    """Statistics of the ratios ρ of some tokens, as terms that ``+`` merges over rows and ranks.

    All fields are floats, so ranks exchange the vector ``dataclasses.astuple(statistics)``, and
    ``LossStatistics(*vector)`` restores it. The default is the neutral element: the statistics of a row
    without tokens.

    Example, two tokens with ρ = 1 and 1.5, A > 0 and clip_high = 0.28: ``LossStatistics(2, ratio_sum=2.5,
    clip_high_tokens=1, correction_sum=2.5, correction_square_sum=3.25, ratio_max=1.5)``
    """

    tokens: float = 0.0
    """Number of tokens."""
    ratio_sum: float = 0.0
    """Σ ρ."""
    clip_low_tokens: float = 0.0
    """Tokens whose gradient the lower bound stops (ρ < 1 - clip_low and A < 0)."""
    clip_high_tokens: float = 0.0
    """Tokens whose gradient the upper bound stops (ρ > 1 + clip_high and A > 0)."""
    correction_sum: float = 0.0
    """Σ ρw, with the importance weight w, or 1."""
    correction_square_sum: float = 0.0
    """Σ (ρw)²."""
    ratio_max: float = 0.0
    """The largest ρ."""

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
        """Return the terms of one row; the arguments are those of `grpo_loss`."""
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
        # One transfer: every .item() would wait for the device.
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
        """Return the step's metrics; each is None without tokens.

        ``effective_sample_size`` is (Σ ρw)² / Σ (ρw)² (Kish, "Survey Sampling", 1965) as a fraction of the
        tokens: 1 on policy.
        """
        if not self.tokens:
            names = "ratio_mean ratio_max clip_low_fraction clip_high_fraction effective_sample_size"
            return dict.fromkeys(names.split())
        return {
            "ratio_mean": self.ratio_sum / self.tokens,
            "ratio_max": self.ratio_max,
            "clip_low_fraction": self.clip_low_tokens / self.tokens,
            "clip_high_fraction": self.clip_high_tokens / self.tokens,
            "effective_sample_size": self.correction_sum**2 / self.correction_square_sum / self.tokens,
        }
