"""The settings of operating a run: how versions travel, when it is durable, how long it waits, where it runs, who watches it."""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import NotNegative, Positive, Seconds, Section


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


class ExperienceSettings(Section):
    """The trained groups, kept so that every reward can be derived again offline."""

    keep_steps: NotNegative | None = None
    """Newest steps whose groups stay in `experience/`; null: all of them; 0: none."""


class DeadlineSettings(Section):
    """Every wait's bound."""

    start_s: Seconds = 600.0
    """Starting all actors, models loaded."""
    batch_s: Seconds = 1800.0
    """Waiting for a whole batch."""
    step_s: Seconds = 3600.0
    """One learner step."""
    lease_s: Seconds = 600.0
    """One group, from lease to scored; past it the group is issued again."""
    checkpoint_s: Seconds = 1800.0
    """Writing or reading one checkpoint."""
    stop_s: Seconds = 120.0
    """After SIGTERM or SIGINT: finishing the step under way, the checkpoint, and ending all actors. Past it, the run ends at once and
    keeps the checkpoint before."""
    place_s: Seconds = 1800.0
    """Waiting for room in the cluster, while no rollout worker serves or the learner has no place."""
    drain_s: Seconds = 300.0
    """A worker that is scaled away finishes its groups; past it, it is ended and its groups are issued again."""
    group_s: Seconds = 1800.0
    """One group in a living worker, from lease to report; past it, its engine is taken to hang, and the worker is replaced."""
    silence_s: Seconds = 60.0
    """A worker or a ledger that gives no sign of life for so long is taken for dead, and replaced."""


class PlacementSettings(Section):
    """Which actor runs where."""

    mode: Literal["separate", "shared"] = "separate"
    """`separate`: rollout and learner have devices of their own; `shared`: they take turns on one (max_staleness 0)."""
    device: Literal["cpu", "gpu"] = "cpu"
    """What the engines and the learner run on."""
    rollout_gpu_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of one GPU's memory that an engine may take where one GPU is split (`separate` on a single GPU)."""
    object_store_gib: Annotated[float, Field(gt=0.0, le=4096.0)] = 1.0
    """Ray object store of a cluster started by this command, in GiB."""


class SupervisionSettings(Section):
    """What is replaced when it dies, and how often before the run ends with the cause."""

    restarts: NotNegative = 5
    """Replacements of one worker, or restarts of the learner, of the ledger, or of the coordinator, each within `window_s`; one more
    ends the run."""
    window_s: Seconds = 3600.0
    """What is counted against `restarts`: deaths not longer ago than this."""
    poison_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Workers that a prompt may break; then it is withheld, and written to `poison.jsonl` for inspection."""


class MetricsSettings(Section):
    """The Prometheus endpoint."""

    port: Annotated[int, Field(ge=0, le=65_535)] | None = 0
    """Port of `/metrics` on the coordinator's node; 0: a free one, which `dynalign status` shows; null: no endpoint."""
    host: str = "127.0.0.1"
    """Address it listens on; `0.0.0.0` lets a Prometheus elsewhere scrape it. The endpoint asks for no password."""
