"""Section `checkpoint`: when the state of a run is saved, and what is kept."""

from typing import Annotated

from pydantic import Field

from dynalign.configs.section import NotNegative, Positive, Section


class CheckpointSettings(Section):
    """When the run is made durable."""

    every_steps: Positive = 10
    """Steps between checkpoints; one is always made at the end, on Ctrl-C and on `stop`."""
    keep_last: Annotated[int, Field(ge=1, le=1000)] = 2
    """Newest whole checkpoints kept."""
    keep_best: NotNegative = 0
    """Whole checkpoints kept besides, those with the highest held-out reward."""
    failures: NotNegative = 3
    """Checkpoints in a row that may fail to be written (a full disk, say), each tried again after the next step; one more ends the run."""
    mirror: (
        Annotated[str, Field(pattern=r"^((s3|gs)://[^/?#\s]+|file:///[^/?#\s]+)(/[^?#\s]*)?(\?[^#\s]*)?$")]
        | None
    ) = None
    """Where whole checkpoints are copied to, in the background, into a folder of the run's name: `s3://bucket/path`, `gs://bucket/path` or
    `file:///path`; null: nowhere. `?endpoint_override=host:port&scheme=http` names another S3 than Amazon's. The run continues from there
    when its folder is lost. Credentials are those of the driver's environment."""
