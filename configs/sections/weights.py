"""Section `weights`: how a new weight version reaches the engines."""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Seconds, Section


class WeightsSettings(Section):
    """The transport of weight versions from the learner to the engines.

    Example: `{transport: nccl, content: full, bucket_mib: 256, deadline_s: 120.0}`.
    """

    transport: Literal["auto", "object_store", "shared_memory", "ipc", "nccl"] = "auto"
    """`object_store`: the Ray object store, works everywhere; `shared_memory`: a file in memory that
    engines on the learner's host map, the object store for the others; `ipc`: CUDA memory of one GPU that
    learner and engine share; `nccl`: from GPU to GPU; `auto`: what the placement plan chooses."""
    content: Literal["full", "adapter"] = "full"
    """`full`: all weights, adapters merged in; `adapter`: only the LoRA adapters, which the engines apply
    to the weights that they loaded at the start."""
    bucket_mib: Annotated[int, Field(ge=1, le=4096)] = 64
    """Size of one bucket, in MiB. Weights travel in buckets, each with its own checksum."""
    deadline_s: Seconds = 300.0
    """Longest time to fetch and load one version, in seconds."""
