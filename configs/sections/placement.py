"""Section `placement`: which actor runs on which device."""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Section


class PlacementSettings(Section):
    """Devices of the engines and the learner, and memory of a cluster that the command starts itself.

    Example: `{mode: shared, device: gpu, object_store_gib: 8.0}`.
    """

    mode: Literal["separate", "shared"] = "separate"
    """`separate`: rollout and learner have devices of their own; `shared`: they take turns on one
    (max_staleness 0)."""
    device: Literal["cpu", "gpu"] = "cpu"
    """What the engines and the learner run on."""
    rollout_gpu_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of one GPU's memory that an engine may take where one GPU is split (`separate` on a single
    GPU)."""
    object_store_gib: Annotated[float, Field(gt=0.0, le=4096.0)] = 1.0
    """Ray object store of a cluster that this command starts, in GiB."""
