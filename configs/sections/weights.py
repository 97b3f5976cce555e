"""Section `weights`: how a new weight version reaches the engines."""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Seconds, Section


class WeightsSettings(Section):
    """How a new version reaches the engines."""

    transport: Literal["auto", "object_store", "shared_memory", "ipc", "nccl"] = "auto"
    """`object_store`: the Ray object store, works everywhere; `shared_memory`: a file in the learner's memory that engines on its host map,
    the object store for others; `ipc`: CUDA memory of one GPU that learner and engine share; `nccl`: between GPUs; `auto`: what the
    placement plan chooses."""
    content: Literal["full", "adapter"] = "full"
    """`full`: all weights, adapters merged in; `adapter`: only the LoRA adapters, which the engines apply to the weights as released."""
    bucket_mib: Annotated[int, Field(ge=1, le=4096)] = 64
    """Size of one bucket, in MiB; each has its own checksum."""
    deadline_s: Seconds = 300.0
    """Longest time for fetching and loading one version."""
