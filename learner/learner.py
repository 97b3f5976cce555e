"""The learner of one rank: a step's groups in, better weights out. Plain Python; all ranks make the same calls in the same order.

    prepare   decode, advantages, packing: no collective, so that one rank's bad batch fails the step instead of hanging it
    run       forward, backward, optimizer step, over all minibatches; then the ranks' sums are added up

`actors/learner/learner_rank.py` puts it into an actor.
"""

import logging
import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynalign.configs.errors import RecordError
from dynalign.configs.schema import RunSettings
from dynalign.learner import experience
from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.learner.deepspeed_engine import DeepSpeedEngine
from dynalign.learner.export import export_model
from dynalign.learner.head.spare_cores import PutOff, SpareCores
from dynalign.learner.learner_state import LearnerState, Report
from dynalign.learner.loss import LossStatistics, RowLoss, kl_k3
from dynalign.learner.policy import Policy, load_policy
from dynalign.learner.rows.packing import minibatches
from dynalign.learner.rows.rows import Row, build_rows, plan_rows
from dynalign.learner.schedule import learning_rate
from dynalign.learner.statistics import batch_statistics
from dynalign.learner.weights import DTYPES, Bytes, Staging, make_version, stage_version
from dynalign.rollout.weights.version import Manifest, travelling_adapter

MIB = 1 << 20
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Plan:
    """What `prepare` leaves for `run`: the batch, and this rank's rows of every optimizer step."""

    step: int
    batch: TrainingBatch
    rows_of_minibatches: list[list[Row]]


@dataclass(frozen=True)
class _Sums:
    """Sums over completion tokens, which add up over rows, minibatches and ranks."""

    loss: float = 0.0
    entropy: float = 0.0
    kl: float = 0.0
    mismatch: float = 0.0
    mismatch_tokens: float = 0.0

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


class Learner:
    """One rank. `step` is the last step trained; 0 is the initial policy."""

    def __init__(
        self,
        settings: RunSettings,
        model_folder: Path,
        rank: int,
        world_size: int,
        cores: Collection[int] = (),
    ) -> None:
        """Loads the policy and joins the other ranks. The environment is that of `deepspeed_engine`.

        cores: those that this rank may use where `learner.spare_cores` is set and nobody else needs them, its own included.

        :raises UserError: the model cannot be trained, or not with these adapters.
        """
        self._settings, self._model_folder, self._rank, self._ranks = settings, model_folder, rank, world_size
        torch.set_num_threads(settings.learner.threads)
        device = torch.device("cpu") if settings.placement.device == "cpu" else torch.device("cuda", 0)
        dtype = DTYPES[settings.learner.precision]
        self._policy = load_policy(
            model_folder, settings.learner, dtype, settings.seed, settings.weights.content
        )
        if device.type == "cpu":
            self._use_spare(cores)
        self._reference: Policy | None = None
        if settings.algorithm.kl_coef > 0 and settings.learner.lora is None:
            frozen = load_policy(model_folder, settings.learner, dtype, settings.seed)
            self._reference = frozen.requires_grad_(False).eval().to(device)
        self._engine = DeepSpeedEngine(self._policy, settings.learner, device, settings.deadlines.step_s)
        self._state = LearnerState()
        self._staging: Staging | None = None
        self._plan: _Plan | None = None
        self._trained: TrainingBatch | None = None

    def _use_spare(self, cores: Collection[int]) -> None:
        settings = self._settings.learner
        if (
            not settings.spare_cores
            or len(cores) <= settings.threads
            or settings.gradient_checkpointing
            or settings.zero_stage == 3
        ):
            return
        try:
            spare = SpareCores(cores)
        except OSError as error:
            logger.warning("learner.spare_cores: %s; the backward pass goes on alone", error)
        else:
            self._policy.put_off = PutOff(self._policy.model.get_decoder(), spare)  # type: ignore[no-untyped-call]

    @property
    def step(self) -> int:
        return self._state.step

    def trained_group_ids(self, step: int) -> tuple[int, ...]:
        """The groups of `step` if it is the last step trained, also after a resume; empty otherwise."""
        return self._state.group_ids if step == self._state.step else ()

    def prepare(
        self,
        step: int,
        payloads: Sequence[bytes | memoryview],
        origins: Sequence[str],
        present_fraction: float = 1.0,
    ) -> None:
        """Decodes and packs the batch of `step`. May be called again, also with other groups, until `run`.

        :param present_fraction: the share of the wanted groups that is there; scales the loss.
        :raises RecordError: a payload cannot be trained on. :raises UserError: a sequence does not fit `learner.token_budget`.
        """
        if step == self.step:
            return
        if step != self.step + 1:
            raise ValueError(f"step {step} was asked for, but the last step trained is {self.step}")
        settings = self._settings
        batch = TrainingBatch.of(decode_groups(payloads, origins), settings.algorithm.advantage_scale)
        if batch.highest_token_id >= self._policy.vocabulary_size:
            raise RecordError(
                f"token {batch.highest_token_id} is not in this model's vocabulary of {self._policy.vocabulary_size}"
            )
        groups = len(batch.groups_P)
        chosen = minibatches(groups, min(settings.algorithm.minibatches, groups)) if groups else []
        plans = [plan_rows(batch, part, settings, self._ranks, present_fraction) for part in chosen]
        rows = [build_rows(plan, self._rank, settings.learner.logprob_chunk_tokens) for plan in plans]
        self._plan = _Plan(step, batch, [rows_R for rows_R in rows if rows_R])

    def run(self, step: int) -> Report:
        """Trains step `step` and reports it; asked again for the step trained last, answers the same report.

        A batch without a completion token trains nothing and counts as a step.

        :raises FloatingPointError: loss or gradient is not finite. These weights must not be published.
        """
        if step == self.step:
            return self._state.report
        if self._plan is None or self._plan.step != step:
            raise ValueError(f"step {step} was not prepared")
        started_s = time.perf_counter()
        plan, self._plan = self._plan, None
        settings = self._settings.learner
        rate = learning_rate(
            step, self._settings.steps, settings.learning_rate, settings.warmup_steps, settings.schedule
        )
        sums, ratios = _Sums(), LossStatistics()
        norms: list[float] = []
        old_logprobs = self._logprobs_at_start(plan.rows_of_minibatches)
        for rows_R, old_R in zip(plan.rows_of_minibatches, old_logprobs, strict=True):
            for row, old_T in zip(rows_R, old_R, strict=True):
                row_sums, row_ratios = self._train_row(row, old_T)
                sums, ratios = sums + row_sums, ratios + row_ratios
            norms.append(self._engine.step(rate))
        report = (
            self._over_all_ranks(step, sums, ratios, norms)
            | {"learning_rate": rate}
            | batch_statistics(plan.batch, step)
        )
        learn_s = time.perf_counter() - started_s
        report |= {"learn_s": learn_s, "learn_tokens_per_s": sum(plan.batch.lengths_N) / learn_s}
        self._trained, self._state = plan.batch, LearnerState(step, plan.batch.group_ids, report)
        return report

    @torch.no_grad()
    def _logprobs_at_start(self, rows_of_minibatches: list[list[Row]]) -> list[list[Tensor | None]]:
        """log π of every row before the first update; None in the first minibatch, whose own forward is that."""
        later: list[list[Tensor | None]] = [
            [self._logprobs(row) for row in rows_R] for rows_R in rows_of_minibatches[1:]
        ]
        first: list[list[Tensor | None]] = [[None for _ in rows_R] for rows_R in rows_of_minibatches[:1]]
        return first + later

    def _train_row(self, row: Row, old_logprobs_T: Tensor | None) -> tuple[_Sums, LossStatistics]:
        """Forward and backward of one row."""
        algorithm = self._settings.algorithm
        recorded_T = None if row.behaviour_logprobs_T is None else self._tensor(row.behaviour_logprobs_T)
        reference_T = self._reference_logprobs(row)
        loss = RowLoss(
            self._tensor(row.advantages_T),
            self._tensor(row.weights_T),
            algorithm.clip_low,
            algorithm.clip_high,
            algorithm.kl_coef,
            old_logprobs_T,
            recorded_T,
            reference_T,
        )
        value, logprobs_T, entropy_T = self._engine.forward(*self._inputs(row), loss)
        self._engine.backward(value)
        old_T = loss.old(logprobs_T)
        ratios = LossStatistics.of(
            logprobs_T,
            old_T,
            loss.advantages_T,
            algorithm.clip_low,
            algorithm.clip_high,
            loss.importance(old_T),
        )
        kl_T = logprobs_T.new_zeros(0) if reference_T is None else kl_k3(logprobs_T, reference_T)
        mismatch_T = (
            logprobs_T.new_zeros(0) if recorded_T is None else (old_T - recorded_T)[~recorded_T.isnan()].abs()
        )
        sums_4 = torch.stack(
            [value.detach(), entropy_T.sum(), kl_T.sum(), mismatch_T.sum()]
        ).double()  # one transfer from the device
        loss_sum, entropy_sum, kl_sum, mismatch_sum = sums_4.tolist()
        return _Sums(loss_sum, entropy_sum, kl_sum, mismatch_sum, len(mismatch_T)), ratios

    def _inputs(self, row: Row) -> tuple[Any, ...]:
        """What `Policy.forward` wants of a row."""
        tokens = self._tensor(row.input_ids_S), self._tensor(row.position_ids_S), row.layout
        return *tokens, self._tensor(row.predicting_T), self._tensor(row.targets_T), row.chunks

    def _logprobs(self, row: Row, other: Policy | None = None) -> Tensor:
        """logprobs_T of a row by the policy in training, or by `other`."""
        logprobs_T, _ = (self._engine.forward if other is None else other)(*self._inputs(row))
        return logprobs_T

    @torch.no_grad()
    def _reference_logprobs(self, row: Row) -> Tensor | None:
        """log π of the initial policy; None where the loss has no KL term."""
        if self._settings.algorithm.kl_coef == 0:
            return None
        if self._reference is not None:
            return self._logprobs(row, self._reference)
        with self._policy.initial():
            return self._logprobs(row)

    def _tensor(self, values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values).to(self._engine.device)

    def _over_all_ranks(self, step: int, sums: _Sums, ratios: LossStatistics, norms: list[float]) -> Report:
        """The model's metrics over all ranks: loss and gradient norm as means over minibatches, the others over tokens."""
        if not norms:
            return (
                dict.fromkeys(("loss", "grad_norm", "entropy", "kl", "logprob_mismatch_mean"))
                | LossStatistics().finish()
            )
        ranks = self._engine.gather([*astuple(sums), *astuple(ratios)])
        split = len(astuple(sums))
        total = sum((_Sums(*vector[:split]) for vector in ranks), _Sums())
        all_ratios = sum((LossStatistics(*vector[split:]) for vector in ranks), LossStatistics())
        loss, grad_norm = total.loss / len(norms), math.fsum(norms) / len(norms)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise FloatingPointError(
                f"step {step}: loss {loss}, gradient norm {grad_norm}; continue from the newest checkpoint"
            )
        return {
            "loss": loss,
            "grad_norm": grad_norm,
            "entropy": total.entropy / all_ratios.tokens,
            "kl": total.kl / all_ratios.tokens if self._settings.algorithm.kl_coef > 0 else None,
            "logprob_mismatch_mean": total.mismatch / total.mismatch_tokens
            if total.mismatch_tokens
            else None,
        } | all_ratios.finish()

    def weights(self, lineage: int, staging: Staging | None = None) -> tuple[Manifest, list[Bytes]] | None:
        """Version (lineage, `step`) in the rollout's precision, on rank 0; None elsewhere. Collective.

        It is made of all weights, or of the adapters alone, as `weights.content` says. staging: see `make_version`.
        """
        dtype, bucket_bytes = self._settings.rollout.dtype, self._settings.weights.bucket_mib * MIB
        adapter = travelling_adapter(self._settings)
        tensors = (
            self._released_form() if adapter is None else self._engine.whole(self._policy.adapter_weights())
        )
        version = make_version(tensors, lineage, self.step, dtype, bucket_bytes, adapter, staging)
        return version if self._rank == 0 else None

    def stage(self, lineage: int) -> Staging | None:
        """The same as `weights`, on the learner's own device and over the version staged before: on rank 0; None elsewhere. Collective."""
        tensors = self._released_form()
        if self._rank != 0:
            for _ in tensors:  # each is gathered from all ranks
                pass
            return None
        if self._staging is None:
            self._staging = Staging(self._engine.device)
        bucket_bytes = self._settings.weights.bucket_mib * MIB
        stage_version(self._staging, tensors, lineage, self.step, self._settings.rollout.dtype, bucket_bytes)
        return self._staging

    def staged(self, step: int) -> tuple[Manifest, list[Bytes]] | None:
        """The staged version with its bytes in host memory; None if it is not that of `step`."""
        if self._staging is None or self._staging.manifest.step != step:
            return None
        return self._staging.on_host()

    def _released_form(self) -> Iterator[tuple[str, Tensor]]:
        """Name and whole tensor of every weight as in the released checkpoint, on rank 0. Collective, while it is iterated."""
        return self._policy.on_disk(self._engine.whole(self._policy.weights()))

    def sleep(self) -> None:
        """Shared placement: leaves the device to the engine. `weights`, `export` and `save` still work, `run` and `load` do not."""
        self._engine.sleep()
        if self._reference is not None:
            self._reference.to("cpu")

    def wake(self) -> None:
        """Takes the device back."""
        self._engine.wake()
        if self._reference is not None:
            self._reference.to(self._engine.device)

    def export(self, folder: Path) -> None:
        """The present policy as a Hugging Face folder (bfloat16), written by rank 0. Collective.

        :raises CheckpointError: on all ranks, when rank 0 could not write it.
        """
        tensors = self._released_form()
        if self._rank == 0:
            with self._engine.failed.kept():
                export_model(tensors, self._model_folder, folder)
        for _ in (
            tensors
        ):  # what is left after a failure, and all of it on the other ranks: each tensor is gathered from all
            pass
        self._engine.failed.raise_on_all()

    def save(self, folder: Path) -> None:
        """Everything that `load` needs to go on bitwise, into `folder`. Collective; returns when all ranks have written.

        :raises CheckpointError: on all ranks, when one could not write its part.
        """
        if self._rank == 0:
            with self._engine.failed.kept():
                self._state.write(folder)
        self._engine.save(folder)

    def load(self, folder: Path) -> int:
        """Goes on from `folder`, which `checkpoint.verify` has vouched for (DeepSpeed unpickles it); returns the step. Collective.

        :raises CheckpointError: `folder` holds no learner state.
        """
        state = LearnerState.read(folder)
        self._engine.load(folder)
        self._state, self._plan, self._trained = state, None, None
        return self.step

    def write_experience(self, step: int, folder: Path) -> Path | None:
        """Writes the groups of the step trained last with their advantages; None if this process did not train it."""
        if step != self.step or self._trained is None:
            return None
        return experience.write_step(folder, step, self._trained)
