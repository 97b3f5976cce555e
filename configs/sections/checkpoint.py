"""Section `checkpoint`: when the state of a run is saved, and what is kept."""

from typing import Annotated

from pydantic import Field

from dynalign.configs.section import NotNegative, Positive, Section


class CheckpointSettings(Section):
    """When checkpoints are written, how many stay, and where copies go.

    Example: `{every_steps: 25, keep_last: 2, keep_best: 1, mirror: "s3://bucket/runs"}`.
    """

    every_steps: Positive = 10
    """Steps between checkpoints; one is always written at the end, on Ctrl-C and on `dynalign stop`."""
    keep_last: Annotated[int, Field(ge=1, le=1000)] = 2
    """Newest complete checkpoints that are kept."""
    keep_best: NotNegative = 0
    """Further complete checkpoints that are kept: those with the highest held-out reward."""
    failures: NotNegative = 3
    """Checkpoints in a row that may fail to be written (because the disk is full, say). Each is tried again
    after the next step, at once where the run ends; one more failure ends the run with it."""
    mirror: (
        Annotated[str, Field(pattern=r"^((s3|gs)://[^/?#\s]+|file:///[^/?#\s]+)(/[^?#\s]*)?(\?[^#\s]*)?$")]
        | None
    ) = None
    """Where complete checkpoints are copied in the background, into a folder of the run's name:
    `s3://bucket/path`, `gs://bucket/path` or `file:///path`; null: nowhere.
    `?endpoint_override=host:port&scheme=http` names another S3 service than Amazon's. A run whose folder is
    lost continues from there. Credentials come from the driver's environment."""
