"""New weights in vLLM's own process: a backend of its weight-transfer API.

The process is EngineCore, or one worker per GPU.

    client, vllm.py                   here
    collective_rpc(prepare_weights) ─► prepare: all that can fail without harm (not for a file)
    pause ─► start_weight_update    ─► layerwise reload begins (`vllm_reload.py`)
             update_weights         ─► every tensor of the version (`rollout/weights/incoming.py`)
             finish_weight_update   ─► layerwise reload ends
    resume

An engine has one backend as long as it runs, so that this one serves file, broadcast and shared memory.
Importing this module in vLLM's process registers it.
"""

import ctypes
import signal
from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from dynalign.rollout.engine.vllm_reload import begin_reload, finish_reload, take_in
from dynalign.rollout.weights.incoming import IncomingWeights

BACKEND = "dynalign"
EXTENSION = "dynalign.rollout.engine.vllm_weights.WorkerExtension"
_PR_SET_PDEATHSIG = 1  # Linux prctl option: deliver a signal when the parent dies


@dataclass
class _InitInfo(WeightTransferInitInfo):
    """Empty: there is nothing to connect once for all versions."""


@dataclass
class _UpdateInfo(WeightTransferUpdateInfo):
    """One version, as it is given to the engine's process."""

    source: dict[str, Any] | None
    """See `dynalign.rollout.weights.source.described`; None if `prepare_weights` has received it."""
    manifest: bytes
    """The packed manifest."""


class WeightTransfer(WeightTransferEngine[_InitInfo, _UpdateInfo]):
    """The backend: versions from a file, from the learner's GPU memory, or by broadcast."""

    init_info_cls = _InitInfo
    update_info_cls = _UpdateInfo

    def __init__(self, config: Any, vllm_config: Any, device: torch.device, model: torch.nn.Module) -> None:
        super().__init__(config, vllm_config, device, model)
        # Outside Ray an EngineCore outlives a killed parent and keeps the device.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        self.incoming = IncomingWeights(device, self.parallel_config.rank)

    def init_transfer_engine(self, init_info: _InitInfo) -> None:
        """Nothing to connect."""

    def start_weight_update(self) -> None:
        """Before the first tensor of a version."""
        begin_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Loads the version that an `_UpdateInfo`, as a dictionary, describes."""
        # The base class would always synchronize the accelerator, and a CPU has none.
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: _UpdateInfo) -> None:
        """Loads every tensor of the version."""
        if update_info.source is not None:
            self.incoming.prepare(update_info.source, update_info.manifest)
        take_in(self.model, self.model_config, self.incoming.tensors())

    def finish_weight_update(self) -> None:
        """After the last tensor of a version."""
        finish_reload(self.model, self.model_config)
        self.incoming.close()

    def shutdown(self) -> None:
        """Nothing to do: the process ends."""


class WorkerExtension:
    """Adds a method to vLLM's worker, for `collective_rpc`."""

    weight_transfer_engine: WeightTransfer

    def prepare_weights(self, source: dict[str, Any], manifest: bytes) -> str:
        """Why the version cannot be received this way, empty if it can. The model stays as it was."""
        try:
            self.weight_transfer_engine.incoming.prepare(source, manifest)
        except RuntimeError as error:  # torch's own, TransferFailed, WeightsError
            return f"{type(error).__name__}: {error}"
        return ""


WeightTransferEngineFactory.register_engine(BACKEND, WeightTransfer)
