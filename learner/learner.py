"""The learner of one rank: the groups of a step in, updated weights out.

All ranks make the same calls in the same order.

    prepare   decode, advantages, packing: no collective, so a bad batch fails the step and hangs no rank
    run       forward, backward, update, for each minibatch (`grpo_step.py`)

`actors/learner/learner_rank.py` is the actor around it.
"""

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dynalign.configs.schema import RunSettings
from dynalign.learner import experience
from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.learner.deepspeed_engine import DeepSpeedEngine
from dynalign.learner.export import export_model
from dynalign.learner.grpo_step import GrpoStep
from dynalign.learner.head.spare_cores import DeferredGradients, SpareCores
from dynalign.learner.learner_state import LearnerState, Report
from dynalign.learner.policy import Policy, load_policy
from dynalign.learner.rows.packing import minibatches
from dynalign.learner.rows.rows import Row, build_rows, plan_rows
from dynalign.learner.rows.varlen_probe import checked_kernel
from dynalign.learner.schedule import learning_rate
from dynalign.learner.statistics import batch_statistics
from dynalign.learner.weights import DTYPES, Bytes, Staging, make_version, stage_version
from dynalign.rollout.weights.version import Manifest, travelling_adapter
from dynalign.run_folder.durable import Fence

MIB = 1 << 20
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Plan:
    """What `prepare` computes for `run`."""

    step: int
    """The step to train."""
    batch: TrainingBatch
    """Its groups."""
    rows_of_minibatches: list[list[Row]]
    """This rank's rows, [minibatch][row]; one update per minibatch."""


class Learner:
    """One rank: the policy, its optimizer, and the step in preparation."""

    def __init__(
        self,
        settings: RunSettings,
        model_folder: Path,
        rank: int,
        world_size: int,
        cores: Collection[int] = (),
        stop_ids: Sequence[int] = (),
    ) -> None:
        """Load the policy and join the other ranks.

        The environment must be set as `deepspeed_engine` describes.

        cores: CPU cores that this rank may use while no other process needs them, its own included; only read
        if `learner.spare_cores` is set. stop_ids: see `export_model`.

        Raises UserError if the model cannot be trained, or not with these adapters, or if the device does not
        compute `learner.attention` rightly.
        """
        self._settings = settings
        self._model_folder = model_folder
        self._stop_ids = stop_ids
        self._rank = rank
        self._ranks = world_size
        torch.set_num_threads(settings.learner.threads)
        device = torch.device("cpu") if settings.placement.device == "cpu" else torch.device("cuda", 0)
        dtype = DTYPES[settings.learner.precision]
        # On rank 0 alone: the ranks of a node together would take too much of its memory. Its error ends all.
        self._policy = load_policy(
            model_folder, settings.learner, dtype, settings.seed, settings.weights.content, probed=rank == 0
        )
        if device.type == "cpu":
            self._use_spare_cores(cores)
        if settings.learner.attention == "varlen":
            self._policy.kernel = checked_kernel(device, dtype)
        self._reference: Policy | None = None
        if settings.algorithm.kl_coef > 0 and settings.learner.lora is None:
            frozen = load_policy(model_folder, settings.learner, dtype, settings.seed, probed=False)
            frozen.kernel = self._policy.kernel
            self._reference = frozen.requires_grad_(False).eval().to(device)
        self._engine = DeepSpeedEngine(self._policy, settings.learner, device, settings.deadlines.step_s)
        corrects = settings.rollout.record_behaviour
        self._grpo = GrpoStep(self._engine, self._reference, settings.algorithm, corrects)
        self._state = LearnerState()
        self._staging: Staging | None = None
        self._plan: _Plan | None = None
        self._trained: TrainingBatch | None = None

    def _use_spare_cores(self, cores: Collection[int]) -> None:
        settings = self._settings.learner
        # Deferred gradients exclude recomputed activations and sharded weights.
        possible = not settings.gradient_checkpointing and settings.zero_stage != 3
        if not settings.spare_cores or not possible or len(cores) <= settings.threads:
            return
        try:
            spare = SpareCores(cores)
        except OSError as error:
            logger.warning("learner.spare_cores: %s; the backward pass goes on alone", error)
        else:
            decoder = self._policy.model.get_decoder()  # type: ignore[no-untyped-call]
            self._policy.deferred = DeferredGradients(decoder, spare)

    @property
    def step(self) -> int:
        """The step trained last; 0 is the initial policy."""
        return self._state.step

    def trained_group_ids(self, step: int) -> tuple[int, ...]:
        """Return the groups of `step` if it is the step trained last, also after a resume; otherwise an empty
        tuple.
        """
        return self._state.group_ids if step == self._state.step else ()

    def prepare(
        self,
        step: int,
        payloads: Sequence[bytes | memoryview],
        origins: Sequence[str],
        present_fraction: float = 1.0,
    ) -> None:
        """Decode and pack the batch of `step`. It may be called again, also with other groups, until `run`.

        payloads: Arrow streams of scored groups. origins: a name for each, used in errors.
        present_fraction: the share of the wanted groups that the payloads hold; scales the loss.

        Raises UntrainableGroups with every group that cannot be trained on, RecordError like `decode_groups`,
        and UserError if a sequence exceeds `learner.token_budget`.
        """
        if step == self.step:
            return
        if step != self.step + 1:
            raise ValueError(f"step {step} was asked for, but the last step trained is {self.step}")
        settings = self._settings
        decoded = decode_groups(payloads, origins, settings.rollout.group_size, self._policy.vocabulary_size)
        weighted = settings.judge.consistency_weight
        batch = TrainingBatch.of(decoded, settings.algorithm.advantage_scale, weighted)
        groups = len(batch.groups_P)
        chosen = minibatches(groups, min(settings.algorithm.minibatches, groups)) if groups else []
        plans = [plan_rows(batch, part, settings, self._ranks, present_fraction) for part in chosen]
        rows = [build_rows(plan, self._rank, settings.learner.logprob_chunk_tokens) for plan in plans]
        self._plan = _Plan(step, batch, [rows_R for rows_R in rows if rows_R])

    def run(self, step: int) -> Report:
        """Train step `step` and return its metrics.

        Called again for the step trained last, return the same. Collective.

        A batch without any completion token updates nothing, but counts as a step.

        Raises StepNotFinite if the loss or the gradient is not finite: the learner is as before, and the
        step can be prepared with other groups. Raises LearnerLost if that happens after an update of the
        step: the learner must continue from a checkpoint.
        """
        if step == self.step:
            return self._state.report
        if self._plan is None or self._plan.step != step:
            raise ValueError(f"step {step} was not prepared")
        started_s = time.perf_counter()
        plan = self._plan
        self._plan = None
        settings = self._settings.learner
        rate = learning_rate(
            step, self._settings.steps, settings.learning_rate, settings.warmup_steps, settings.schedule
        )
        report = self._grpo.train(step, plan.rows_of_minibatches, rate)
        report |= {"learning_rate": rate} | batch_statistics(plan.batch, step)
        learn_s = time.perf_counter() - started_s
        report |= {"learn_s": learn_s, "learn_tokens_per_s": sum(plan.batch.lengths_N) / learn_s}
        self._trained = plan.batch
        self._state = LearnerState(step, plan.batch.group_ids, report)
        return report

    def weights(self, lineage: int, staging: Staging | None = None) -> tuple[Manifest, list[Bytes]] | None:
        """Return version (lineage, `step`) in the rollout's precision, in host memory: on rank 0, None
        elsewhere. Collective.

        It holds all weights, or only the adapters, depending on `weights.content`. staging: see
        `make_version`.
        """
        dtype = self._settings.rollout.dtype
        bucket_bytes = self._settings.weights.bucket_mib * MIB
        adapter = travelling_adapter(self._settings)
        if adapter is None:
            tensors = self._released_form()
        else:
            tensors = self._engine.gathered(self._policy.adapter_weights())
        version = make_version(tensors, lineage, self.step, dtype, bucket_bytes, adapter, staging)
        return version if self._rank == 0 else None

    def stage(self, lineage: int) -> Staging | None:
        """Write version (lineage, `step`), always all weights, on the learner's own device. Collective.

        Return the staging on rank 0, None elsewhere. It replaces the version staged before.
        """
        tensors = self._released_form()
        if self._rank != 0:
            _exhaust(tensors)
            return None
        if self._staging is None:
            self._staging = Staging(self._engine.device)
        bucket_bytes = self._settings.weights.bucket_mib * MIB
        stage_version(self._staging, tensors, lineage, self.step, self._settings.rollout.dtype, bucket_bytes)
        return self._staging

    def staged(self, step: int) -> tuple[Manifest, list[Bytes]] | None:
        """Return the staged version with its bytes in host memory; None if another step is staged."""
        if self._staging is None or self._staging.manifest.step != step:
            return None
        return self._staging.on_host()

    def _released_form(self) -> Iterator[tuple[str, Tensor]]:
        """Yield name and full value of every weight as in the released checkpoint, on rank 0.

        Iterating is collective.
        """
        return self._policy.on_disk(self._engine.gathered(self._policy.weights()))

    def sleep(self) -> None:
        """Leave the device to the engine (shared placement).

        `weights`, `export` and `save` still work, not `run` and `load`.
        """
        self._engine.sleep()
        if self._reference is not None:
            self._reference.to("cpu")

    def wake(self) -> None:
        """Move everything back to the device."""
        self._engine.wake()
        if self._reference is not None:
            self._reference.to(self._engine.device)

    def export(self, folder: Path) -> None:
        """Write the present policy as a Hugging Face folder (bfloat16), on rank 0. Collective.

        Raises CheckpointError on all ranks if rank 0 could not write it.
        """
        tensors = self._released_form()
        if self._rank == 0:
            with self._engine.failed.kept():
                export_model(tensors, self._model_folder, folder, stop_ids=self._stop_ids)
        _exhaust(tensors)
        self._engine.failed.raise_on_all()

    def save(self, folder: Path) -> None:
        """Write into `folder` what `load` needs to continue bit for bit; return when all ranks have written.

        Collective.

        Raises CheckpointError on all ranks if one could not write its part.
        """
        if self._rank == 0:
            with self._engine.failed.kept():
                self._state.write(folder)
        self._engine.save(folder)

    def load(self, folder: Path) -> int:
        """Continue from `folder` and return its step. Collective.

        DeepSpeed unpickles the files, so `checkpoint.verify` must have accepted them.

        Raises CheckpointError if `folder` holds no learner state.
        """
        state = LearnerState.read(folder)
        self._engine.load(folder)
        self._state = state
        self._plan = None
        self._trained = None
        return self.step

    def write_experience(self, step: int, folder: Path, fence: Fence = nullcontext) -> Path | None:
        """Write the groups of the step trained last with their advantages; None if this process did not train
        it. fence: see `experience.write_step`.
        """
        if step != self.step or self._trained is None:
            return None
        return experience.write_step(folder, step, self._trained, fence)


def _exhaust(tensors: Iterator[tuple[str, Tensor]]) -> None:
    """Iterate over what is left: each tensor is gathered from all ranks, so every rank must iterate to the
    end.
    """
    for _ in tensors:
        pass
