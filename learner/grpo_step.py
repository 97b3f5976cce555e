"""The computation of one step on one rank: forward and backward passes of its rows, the updates, and the sums
over all ranks.

    first    log π of the rows of every minibatch but the first, before the first update changes the weights
    then     per minibatch: forward and backward of each row, one update; finally the ranks add up their sums

`learner.py` decides which rows; `loss.py` has the formulas.
"""

import math
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynalign.configs.errors import DynalignError, LearnerLost, StepNotFinite
from dynalign.configs.sections.algorithm import AlgorithmSettings
from dynalign.learner.deepspeed_engine import DeepSpeedEngine
from dynalign.learner.learner_state import Report
from dynalign.learner.loss import LossStatistics, RowLoss, kl_k3
from dynalign.learner.policy import Policy
from dynalign.learner.rows.rows import Row


@dataclass(frozen=True)
class _Sums:
    """Sums over completion tokens, which add up over rows, minibatches and ranks."""

    loss: float = 0.0
    """Of the loss; over a whole minibatch it is the loss."""
    entropy: float = 0.0
    """Of the entropy of each token's distribution, nats."""
    kl: float = 0.0
    """Of `kl_k3`, nats; 0 without KL term."""
    mismatch: float = 0.0
    """Of |log π_old - log π_behaviour|, nats, over the tokens that have a recorded π_behaviour."""
    mismatch_tokens: float = 0.0
    """How many tokens have one."""

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


class GrpoStep:
    """GRPO steps on one rank, whose policy is in `engine`."""

    def __init__(
        self,
        engine: DeepSpeedEngine,
        reference: Policy | None,
        algorithm: AlgorithmSettings,
        corrects: bool,
    ) -> None:
        """reference: the initial policy of the KL term; None if `engine`'s policy without its adapters is
        that. corrects: whether the loss corrects for the difference to the engine's log-probabilities
        (`rollout.record_behaviour`); otherwise those that are recorded are only compared.
        """
        self._engine = engine
        self._reference = reference
        self._algorithm = algorithm
        self._corrects = corrects

    def train(self, step: int, rows_of_minibatches: list[list[Row]], learning_rate: float) -> Report:
        """Update the policy once per minibatch, and return the model's metrics over all ranks. Collective.

        Raises StepNotFinite if the loss or the gradient is not finite before any update, so that the step has
        changed nothing; LearnerLost if that happens at a later minibatch, since the updates before it cannot
        be undone here.
        """
        sums = _Sums()
        ratios = LossStatistics()
        norms: list[float] = []
        old_logprobs = self._logprobs_at_start(rows_of_minibatches)
        self._refuse_not_finite(step, old_logprobs)
        for rows_R, old_R in zip(rows_of_minibatches, old_logprobs, strict=True):
            for row, old_T in zip(rows_R, old_R, strict=True):
                row_sums, row_ratios = self._train_row(row, old_T)
                sums += row_sums
                ratios += row_ratios
            norm = self._engine.step(learning_rate)
            if not math.isfinite(norm):
                loss = math.fsum(vector[0] for vector in self._engine.gather([sums.loss]))
                raise _not_finite(step, len(norms), loss, norm)
            norms.append(norm)
        return self._over_all_ranks(sums, ratios, norms)

    def _refuse_not_finite(self, step: int, old_logprobs: list[list[Tensor | None]]) -> None:
        """Raise StepNotFinite on all ranks if the policy gives a token of a later minibatch no finite
        log-probability. The first minibatch has its own check. Collective if there are later ones.
        """
        if len(old_logprobs) < 2:
            return
        computed = [old_T for old_R in old_logprobs for old_T in old_R if old_T is not None]
        finite = all(bool(old_T.isfinite().all()) for old_T in computed)
        if not all(vector[0] for vector in self._engine.gather([float(finite)])):
            raise StepNotFinite(step, math.nan, math.nan)

    @torch.no_grad()
    def _logprobs_at_start(self, rows_of_minibatches: list[list[Row]]) -> list[list[Tensor | None]]:
        """Return log π of every row before the first update.

        It is None for the rows of the first minibatch, whose own forward pass computes it.
        """
        later: list[list[Tensor | None]] = [
            [self._logprobs(row) for row in rows_R] for rows_R in rows_of_minibatches[1:]
        ]
        first: list[list[Tensor | None]] = [[None for _ in rows_R] for rows_R in rows_of_minibatches[:1]]
        return first + later

    def _train_row(self, row: Row, old_logprobs_T: Tensor | None) -> tuple[_Sums, LossStatistics]:
        """Run forward and backward pass of one row."""
        clip_low = self._algorithm.clip_low
        clip_high = self._algorithm.clip_high
        recorded_T = None if row.behaviour_logprobs_T is None else self._tensor(row.behaviour_logprobs_T)
        reference_T = self._reference_logprobs(row)
        tapers = self._algorithm.context_taper
        distill_coef = self._algorithm.distill_coef
        reads_sampling = tapers or distill_coef > 0
        loss = RowLoss(
            advantages_T=self._tensor(row.advantages_T),
            weights_T=self._tensor(row.weights_T),
            clip_low=clip_low,
            clip_high=clip_high,
            kl_coef=self._algorithm.kl_coef,
            old_logprobs_T=old_logprobs_T,
            behaviour_logprobs_T=recorded_T if self._corrects else None,
            reference_logprobs_T=reference_T,
            sampling_logprobs_T=self._tensor(row.sampling_logprobs_T) if reads_sampling else None,
            tapers=tapers,
            distill_coef=distill_coef,
        )
        value, logprobs_T, entropy_T = self._engine.forward(*self._inputs(row), loss)
        self._engine.backward(value)
        old_T = loss.old(logprobs_T)
        importance_T = loss.importance(old_T)
        ratios = LossStatistics.of(logprobs_T, old_T, loss.advantages_T, clip_low, clip_high, importance_T)
        none_T = logprobs_T.new_zeros(0)
        kl_T = none_T if reference_T is None else kl_k3(logprobs_T, reference_T)
        mismatch_T = none_T if recorded_T is None else (old_T - recorded_T)[~recorded_T.isnan()].abs()
        # stacked, so that the device is read once
        sums_4 = torch.stack([value.detach(), entropy_T.sum(), kl_T.sum(), mismatch_T.sum()]).double()
        loss_sum, entropy_sum, kl_sum, mismatch_sum = sums_4.tolist()
        return _Sums(loss_sum, entropy_sum, kl_sum, mismatch_sum, len(mismatch_T)), ratios

    def _inputs(self, row: Row) -> tuple[Any, ...]:
        """Return the arguments of `Policy.forward`."""
        tokens = (self._tensor(row.input_ids_S), self._tensor(row.position_ids_S), row.layout)
        return *tokens, self._tensor(row.predicting_T), self._tensor(row.targets_T), row.chunks

    def _logprobs(self, row: Row, other: Policy | None = None) -> Tensor:
        """Return logprobs_T of a row by the policy in training, or by `other`."""
        logprobs_T, _ = (self._engine.forward if other is None else other)(*self._inputs(row))
        return logprobs_T

    @torch.no_grad()
    def _reference_logprobs(self, row: Row) -> Tensor | None:
        """Return log π of the initial policy; None if the loss has no KL term."""
        if self._algorithm.kl_coef == 0:
            return None
        if self._reference is not None:
            return self._logprobs(row, self._reference)
        with self._engine.policy.initial():
            return self._logprobs(row)

    def _tensor(self, values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values).to(self._engine.device)

    def _over_all_ranks(self, sums: _Sums, ratios: LossStatistics, norms: list[float]) -> Report:
        """Return the metrics over all ranks: loss and gradient norm as means over minibatches, the others
        over tokens.
        """
        if not norms:
            names = ("loss", "grad_norm", "entropy", "kl", "logprob_mismatch_mean")
            return dict.fromkeys(names) | LossStatistics().finish()
        ranks = self._engine.gather([*astuple(sums), *astuple(ratios)])
        split = len(astuple(sums))
        total = sum((_Sums(*vector[:split]) for vector in ranks), _Sums())
        all_ratios = sum((LossStatistics(*vector[split:]) for vector in ranks), LossStatistics())
        loss = total.loss / len(norms)
        grad_norm = math.fsum(norms) / len(norms)
        mismatch = total.mismatch / total.mismatch_tokens if total.mismatch_tokens else None
        return {
            "loss": loss,
            "grad_norm": grad_norm,
            "entropy": total.entropy / all_ratios.tokens,
            "kl": total.kl / all_ratios.tokens if self._algorithm.kl_coef > 0 else None,
            "logprob_mismatch_mean": mismatch,
        } | all_ratios.finish()


def _not_finite(step: int, updates: int, loss: float, grad_norm: float) -> DynalignError:
    """Return the error of a minibatch that is not finite. updates: how many the step has made before it."""
    error = StepNotFinite(step, loss, grad_norm)
    if not updates:
        return error
    return LearnerLost("failed", f"minibatch {updates + 1} of {error}, but {updates} before it were")
