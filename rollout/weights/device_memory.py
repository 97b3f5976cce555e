"""The learner's GPU memory, read by an engine on the same GPU through CUDA IPC.

The handles travel as plain fields, so that nothing is unpickled. Needed where learner and engine share a GPU.
"""

import torch
from torch import Tensor
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

from dynalign.configs.errors import TransferFailed
from dynalign.rollout.weights.source import MemoryHandle


def shared(bucket: Tensor) -> MemoryHandle:
    """The handle of flat bytes (uint8) on a GPU.

    Call it once per bucket: torch counts every call as one more reader that keeps the memory from being
    freed. That is harmless for buckets that the learner keeps until it ends."""
    arguments = reduce_tensor(bucket)[1]  # type: ignore[no-untyped-call]
    # The arguments of rebuild_cuda_tensor, in its order.
    return MemoryHandle(_uuid(bucket.device), bucket.numel(), *arguments[7:10], *arguments[11:])


def opened(handle: MemoryHandle, device: torch.device) -> Tensor:
    """The bucket's bytes themselves, not a copy.

    Raises TransferFailed if they are on another GPU, torch's RuntimeError where the driver forbids access."""
    if _uuid(device) != handle.gpu:
        raise TransferFailed(
            f"the learner's weights are on GPU {handle.gpu}, the engine is on {_uuid(device)}"
        )
    return rebuild_cuda_tensor(  # type: ignore[no-any-return, no-untyped-call]
        tensor_cls=Tensor,
        tensor_size=(handle.size_bytes,),
        tensor_stride=(1,),
        tensor_offset=0,
        storage_cls=torch.storage.TypedStorage,
        dtype=torch.uint8,
        storage_device=device.index,
        storage_handle=handle.storage_handle,
        storage_size_bytes=handle.storage_size_bytes,
        storage_offset_bytes=handle.storage_offset_bytes,
        requires_grad=False,
        ref_counter_handle=handle.counter_handle,
        ref_counter_offset=handle.counter_offset,
        event_handle=handle.event_handle,
        event_sync_required=handle.event_sync_required,
    )


def _uuid(device: torch.device) -> str:
    return str(torch.cuda.get_device_properties(device).uuid)
