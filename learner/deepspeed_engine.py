"""DeepSpeed behind five verbs: forward, backward, step, whole weights, checkpoint. The only file that imports it.

The caller sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT, and on a CPU DS_ACCELERATOR=cpu, before importing this.
Every call but `backward` on an inner micro-batch may be a collective: all ranks make the same calls in the same order.
"""

import logging
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
"""Gradients reduced at once; DeepSpeed's default of 5e8 would reserve 2 GB per buffer for the smallest model."""


def _configuration(settings: LearnerSettings, clips: bool, ranks: int) -> dict[str, Any]:
    sharded = settings.zero_stage == 3
    zero = {
        "stage": settings.zero_stage,
        # A gradient above this size is reduced where it lies: with one rank there is nothing to reduce, and no copy is needed for it.
        "reduce_bucket_size": BUCKET_ELEMENTS if ranks > 1 or sharded else 1,
        # At stages 1 and 2 DeepSpeed's "scatter" is an all-reduce as well, on a flattened copy that is copied back.
        "reduce_scatter": sharded,
        "allgather_bucket_size": BUCKET_ELEMENTS,
        "overlap_comm": False,
        "contiguous_gradients": True,
    }
    return {
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed insists on a number; rows are micro-batches of any size
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # `step` is the boundary, after any number of rows
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # torch's AdamW, which is as fast as DeepSpeed's own and needs no compiler
        # Not checked for overflow: DeepSpeed would skip the step in silence, the learner raises on a norm that is not finite.
        "bf16": {"enabled": settings.precision == "bfloat16", "check_grad_overflow": False},
        "gradient_clipping": settings.grad_clip if clips else 0.0,
        "steps_per_print": 2**31,
    }


class _Writer(TorchCheckpointEngine):  # type: ignore[misc]  # DeepSpeed carries no types
    """Writes DeepSpeed's files as it would itself, and keeps what fails: `save_checkpoint` is full of collectives."""

    def __init__(self, failed: FailedWrites) -> None:
        super().__init__()
        self._failed = failed

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        with self._failed.kept():
            super().makedirs(path, exist_ok)

    def save(self, state_dict: object, path: str) -> None:
        with (
            self._failed.kept(RuntimeError),
            open(path, "wb") as file,
        ):  # given a path, torch would not say why it cannot write
            torch.save(state_dict, file)


class DeepSpeedEngine:
    """One rank of data-parallel training: the policy's parameters, their float32 masters and moments, the gradients' reduction."""

    def __init__(
        self, policy: Policy, settings: LearnerSettings, device: torch.device, deadline_s: float
    ) -> None:
        """Joins the other ranks. A collective that waits longer than `deadline_s` fails."""
        deepspeed.utils.logger.setLevel(logging.ERROR)
        warnings.filterwarnings(
            "ignore", category=FutureWarning, module="torch.distributed"
        )  # DeepSpeed's calls, at every one
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = (
            False  # a minute of compiling, for inference only
        )
        backend = "gloo" if device.type == "cpu" else "nccl"
        deepspeed.init_distributed(dist_backend=backend, timeout=timedelta(seconds=deadline_s), verbose=False)
        self.policy, self.device, self._settings = policy, device, settings
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(
            trained,
            lr=0.0,  # `step` sets it; DeepSpeed steps once on zeros at the start, which must not decay the weights
            betas=(settings.adam_beta1, settings.adam_beta2),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._own_norm: Tensor | None = None
        self._asleep = False
        plain = (
            settings.zero_stage == 0 and settings.precision == "float32"
        )  # DeepSpeed clips here without telling the norm
        if plain:
            self._optimizer.register_step_pre_hook(self._clip)
        configuration = _configuration(settings, not plain, self.ranks)
        self._engine, *_ = deepspeed.initialize(model=policy, optimizer=self._optimizer, config=configuration)
        if settings.zero_stage == 0:
            self._optimizer.state.clear()  # the step on zeros has counted as one, which would bend Adam's bias correction
        self.failed = FailedWrites()
        self._engine.checkpoint_engine = _Writer(self.failed)
        self._engine._copy_recovery_script = _no_recovery_script

    def _clip(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._own_norm = nn.utils.clip_grad_norm_(parameters, self._settings.grad_clip)

    def forward(self, *inputs: object) -> tuple[Tensor, ...]:
        """`Policy.forward`; under `torch.no_grad()` too."""
        outputs: tuple[Tensor, ...] = self._engine(*inputs)
        return outputs

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of `loss`, a share of a sum over all rows of all ranks (DeepSpeed itself would take their mean)."""
        self._engine.backward(loss * self.ranks, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> float:
        """Clips, updates, forgets the gradients; returns the global norm that they had before clipping."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        norm = self._engine.get_global_grad_norm() if self._own_norm is None else self._own_norm
        return float(norm)

    def sleep(self) -> None:
        """Frees the device for somebody else: parameters, masters, moments and gradients go to host memory, from where `whole` and
        `save` still read. DeepSpeed can move them at ZeRO 1 and 2; at 0 and 3 nothing is moved, which is right on a CPU only."""
        if not self._asleep and self._settings.zero_stage in (1, 2):
            self._engine.offload_states(pin_memory=False)  # it would pin as much memory anew each time
            self._move_frozen(torch.device("cpu"))
            self._asleep = True

    def wake(self) -> None:
        """Takes the device back: `forward`, `step` and `load` work again."""
        if self._asleep:
            self._engine.reload_states()
            self._move_frozen(self.device)
            self._asleep = False

    def _move_frozen(self, device: torch.device) -> None:
        # DeepSpeed moves what it trains; the weights under adapters, and buffers, are none of its business.
        for tensor in (*self.policy.parameters(), *self.policy.buffers()):
            if not tensor.requires_grad:
                tensor.data = tensor.data.to(device)
        if self.device.type != "cpu":
            torch.cuda.empty_cache()

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """The vectors of all ranks, on all ranks; all of one length."""
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        everyone = [torch.empty_like(mine) for _ in range(self.ranks)]
        dist.all_gather(everyone, mine)
        return [theirs.tolist() for theirs in everyone]

    def _whole(self, parameters: tuple[nn.Parameter, ...]) -> AbstractContextManager[object]:
        return (
            deepspeed.zero.GatheredParameters(parameters) if self._settings.zero_stage == 3 else nullcontext()
        )

    def whole(self, weights: Iterable[NamedWeight]) -> Iterator[tuple[str, Tensor]]:
        """Name and whole tensor of each of the policy's `weights`, on rank 0; nothing on the others, which must iterate too. A tensor
        is valid until the next one is asked for."""
        for weight in weights:
            with self._whole(weight.parameters):
                if self.rank == 0:
                    yield weight.name, weight.value()

    def save(self, folder: Path) -> None:
        """Writes every rank's part into `folder`; returns when all have written. Frozen weights are left out: they come from the
        model folder.

        :raises CheckpointError: on all ranks, when one could not write its part. Training goes on from where it was.
        """
        frozen = self._settings.lora is not None
        self._engine.save_checkpoint(
            str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=frozen
        )
        self.failed.raise_on_all()

    def load(self, folder: Path) -> None:
        """Continues from `folder`. DeepSpeed unpickles it, so load only what a manifest vouches for.

        :raises CheckpointError: there is no state in `folder`.
        """
        if not (folder / TAG).is_dir():
            raise CheckpointError(f"{folder / TAG} does not exist: this is no learner state")
        path, _ = self._engine.load_checkpoint(
            str(folder), tag=TAG, load_module_strict=self._settings.lora is None
        )
        if path is None:
            raise CheckpointError(f"{folder / TAG} holds no state that DeepSpeed can read")


def _no_recovery_script(folder: str) -> None:
    """In place of DeepSpeed's copy of two scripts that make plain weights of its files, past the checkpoint engine: a failure there
    would end `save_checkpoint` on rank 0 alone. The folder `hf/` beside them holds plain weights."""
