"""DeepSpeed behind five verbs: forward, backward, step, gather the weights, checkpoint.

Only this file imports DeepSpeed.

Before this module is imported, the environment must hold RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT, and on a CPU DS_ACCELERATOR=cpu. Every method may be a collective, so all ranks make the same
calls in the same order.
"""

import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from torch import Tensor, nn

from dynalign.configs.errors import CheckpointError
from dynalign.configs.sections.learner import LearnerSettings
from dynalign.learner.failed_writes import FailedWrites
from dynalign.learner.policy import NamedWeight, Policy

TAG = "state"
"""DeepSpeed's name for the one state in a checkpoint folder."""
BUCKET_ELEMENTS = 50_000_000
"""Gradients reduced in one call; DeepSpeed's default of 5e8 would reserve 2 GB per buffer even for the
smallest model."""


def _configuration(settings: LearnerSettings, clips: bool, ranks: int) -> dict[str, Any]:
    sharded = settings.zero_stage == 3
    zero = {
        "stage": settings.zero_stage,
        # A gradient above this size is reduced in place. With one rank nothing is reduced, so no gradient
        # needs a copy.
        "reduce_bucket_size": BUCKET_ELEMENTS if ranks > 1 or sharded else 1,
        # At stages 1 and 2 DeepSpeed's "scatter" is an all-reduce too, on a flat copy that it copies back.
        "reduce_scatter": sharded,
        "allgather_bucket_size": BUCKET_ELEMENTS,
        "overlap_comm": False,
        "contiguous_gradients": True,
    }
    return {
        # DeepSpeed requires a number; rows are micro-batches of any size.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Accumulation ends when `step` is called, after any number of rows.
        "managed_gradient_accumulation": False,
        "zero_optimization": zero,
        # torch's AdamW is as fast as DeepSpeed's and needs no compiler.
        "zero_allow_untested_optimizer": True,
        # With this DeepSpeed makes no update from a gradient that is not finite, at any stage and precision.
        "bf16": {"enabled": settings.precision == "bfloat16", "check_grad_overflow": True},
        "gradient_clipping": settings.grad_clip if clips else 0.0,
        "steps_per_print": 2**31,
    }


class _Writer(TorchCheckpointEngine):  # type: ignore[misc]  # DeepSpeed carries no types
    """Writes DeepSpeed's files as DeepSpeed does, but records failures: `save_checkpoint` contains
    collectives.
    """

    def __init__(self, failed: FailedWrites) -> None:
        super().__init__()
        self._failed = failed

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        with self._failed.kept():
            super().makedirs(path, exist_ok)

    def save(self, state_dict: object, path: str) -> None:
        # Given a path instead of a file, torch would not report why it cannot write.
        with self._failed.kept(RuntimeError), open(path, "wb") as file:
            torch.save(state_dict, file)


class DeepSpeedEngine:
    """One rank of data-parallel training: parameters, float32 master weights, optimizer moments, and
    reduction of gradients.
    """

    def __init__(
        self, policy: Policy, settings: LearnerSettings, device: torch.device, deadline_s: float
    ) -> None:
        """Join the other ranks. A collective that waits longer than `deadline_s` fails."""
        deepspeed.utils.logger.setLevel(logging.ERROR)
        # DeepSpeed's calls into torch.distributed warn each time.
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
        # This operation takes a minute to compile, and only inference uses it.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        backend = "gloo" if device.type == "cpu" else "nccl"
        deepspeed.init_distributed(dist_backend=backend, timeout=timedelta(seconds=deadline_s), verbose=False)
        self.policy = policy
        self.device = device
        self.rank = dist.get_rank()
        self.ranks = dist.get_world_size()
        self._settings = settings
        trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        # `step` sets the rate. It starts at 0, because DeepSpeed makes one step on zero gradients at the
        # start, which must not decay the weights.
        self._optimizer = torch.optim.AdamW(
            trained,
            lr=0.0,
            betas=(settings.adam_beta1, settings.adam_beta2),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._own_norm: Tensor | None = None
        self._asleep = False
        # For these settings DeepSpeed would clip without reporting the norm.
        clips_itself = settings.zero_stage == 0 and settings.precision == "float32"
        if clips_itself:
            self._optimizer.register_step_pre_hook(self._clip)
        configuration = _configuration(settings, not clips_itself, self.ranks)
        self._engine, *_ = deepspeed.initialize(model=policy, optimizer=self._optimizer, config=configuration)
        if settings.zero_stage == 0:
            # Adam has counted the step on zeros, which would distort its bias correction.
            self._optimizer.state.clear()
        self.failed = FailedWrites(device)
        self._engine.checkpoint_engine = _Writer(self.failed)
        self._engine._copy_recovery_script = _no_recovery_script

    def _clip(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._own_norm = nn.utils.clip_grad_norm_(parameters, self._settings.grad_clip)
        if not self._own_norm.isfinite():
            for parameter in parameters:
                parameter.grad = None  # the optimizer passes over it

    def forward(self, *inputs: object) -> tuple[Tensor, ...]:
        """Call `Policy.forward`; also under `torch.no_grad()`."""
        outputs: tuple[Tensor, ...] = self._engine(*inputs)
        return outputs

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, one term of a sum over all rows of all ranks.

        DeepSpeed averages over ranks, which the factor undoes. A loss that is not finite makes the whole
        gradient not finite, so that `step` makes no update from it.
        """
        factor = torch.where(loss.detach().isfinite(), self.ranks, math.nan)
        self._engine.backward(loss * factor, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> float:
        """Clip the gradients, update the weights, and clear the gradients; return their global norm before
        clipping, which is the same on all ranks.

        If the norm is not finite, weights and optimizer stay as they are.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        norm = self._engine.get_global_grad_norm() if self._own_norm is None else self._own_norm
        return float(norm)

    def sleep(self) -> None:
        """Free the device for another process: move parameters, master weights, moments and gradients to host
        memory.

        `gathered` and `save` still work. DeepSpeed can move its state at ZeRO stages 1 and 2; at 0 and 3
        nothing is moved, which is acceptable only on a CPU.
        """
        if not self._asleep and self._settings.zero_stage in (1, 2):
            # Not pinned: DeepSpeed would pin new memory of that size each time.
            self._engine.offload_states(pin_memory=False)
            self._move_frozen(torch.device("cpu"))
            self._asleep = True

    def wake(self) -> None:
        """Move the state back to the device, so that `forward`, `step` and `load` work again."""
        if self._asleep:
            self._engine.reload_states()
            self._move_frozen(self.device)
            self._asleep = False

    def _move_frozen(self, device: torch.device) -> None:
        # DeepSpeed moves only what it trains: not the weights below adapters, and not buffers.
        for tensor in (*self.policy.parameters(), *self.policy.buffers()):
            if not tensor.requires_grad:
                tensor.data = tensor.data.to(device)
        if self.device.type != "cpu":
            torch.cuda.empty_cache()

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """Return the vectors of all ranks, on all ranks; they must have the same length. Collective."""
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        everyone = [torch.empty_like(mine) for _ in range(self.ranks)]
        dist.all_gather(everyone, mine)
        return [theirs.tolist() for theirs in everyone]

    def _gathered(self, parameters: tuple[nn.Parameter, ...]) -> AbstractContextManager[object]:
        if self._settings.zero_stage != 3:
            return nullcontext()
        context: AbstractContextManager[object] = deepspeed.zero.GatheredParameters(parameters)
        return context

    def gathered(self, weights: Iterable[NamedWeight]) -> Iterator[tuple[str, Tensor]]:
        """Yield name and full tensor of each of the policy's `weights` on rank 0. Collective.

        The other ranks get nothing, but must iterate too. A tensor is valid until the next one is requested.
        """
        for weight in weights:
            with self._gathered(weight.parameters):
                if self.rank == 0:
                    yield weight.name, weight.value()

    def save(self, folder: Path) -> None:
        """Write every rank's part into `folder`, and return when all have written. Collective.

        Frozen weights are left out, since they come from the model folder.

        Raises CheckpointError on all ranks if one could not write its part. Training can continue.
        """
        frozen = self._settings.lora is not None
        self._engine.save_checkpoint(
            str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=frozen
        )
        self.failed.raise_on_all()

    def load(self, folder: Path) -> None:
        """Continue from `folder`.

        Collective. DeepSpeed unpickles the files, so load only what a manifest has verified.

        Raises CheckpointError if `folder` holds no state.
        """
        if not (folder / TAG).is_dir():
            raise CheckpointError(f"{folder / TAG} does not exist: this is no learner state")
        path, _ = self._engine.load_checkpoint(
            str(folder), tag=TAG, load_module_strict=self._settings.lora is None
        )
        if path is None:
            raise CheckpointError(f"{folder / TAG} holds no state that DeepSpeed can read")


def _no_recovery_script(folder: str) -> None:
    """Replaces DeepSpeed's copying of two scripts that convert its files to plain weights.

    DeepSpeed does not write them through its checkpoint engine, so a failure would end `save_checkpoint` on
    rank 0 alone. The scripts are not needed: the folder `hf/` beside them holds plain weights.
    """
