"""The settings of a run: its own values, and one section per file of `sections/`.

Rules between settings stand in `rules.py`; reading, overrides and origins in `load.py`.
"""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Positive, Section
from dynalign.configs.sections.algorithm import AlgorithmSettings
from dynalign.configs.sections.checkpoint import CheckpointSettings
from dynalign.configs.sections.convergence import ConvergenceSettings
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.configs.sections.experience import ExperienceSettings
from dynalign.configs.sections.heldout import HeldoutSettings
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.configs.sections.learner import LearnerSettings
from dynalign.configs.sections.metrics import MetricsSettings
from dynalign.configs.sections.placement import PlacementSettings
from dynalign.configs.sections.prompts import PromptsSettings
from dynalign.configs.sections.rollout import RolloutSettings
from dynalign.configs.sections.supervision import SupervisionSettings
from dynalign.configs.sections.weights import WeightsSettings


class RunSettings(Section):
    """One run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    """Name of the run, its folder and its coordinator; default: the config file's name."""
    model: str
    """`smollm2-135m-instruct` (made by `dynalign model fetch`), a Hugging Face folder, or a hub id."""
    runs: str = "runs"
    """Folder of run folders; absolute, or relative to where the command runs. All nodes must reach it."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of prompt order, sampling and initialization."""
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")] | None = None
    """The day that chat templates print (ISO), fixed for the whole run; null: the day on which the run began."""
    steps: Positive = 100
    """Optimizer steps."""
    resume: Literal["auto", "never"] = "auto"
    """`auto` continues an interrupted run of this name; `never` refuses an existing run folder."""
    tensorboard: bool = True
    """Also write TensorBoard event files."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe of its own lines that the driver and the actors log; libraries log warnings and errors only."""
    prompts: PromptsSettings = PromptsSettings()
    rollout: RolloutSettings = RolloutSettings()
    judge: JudgeSettings = JudgeSettings()
    algorithm: AlgorithmSettings = AlgorithmSettings()
    learner: LearnerSettings = LearnerSettings()
    weights: WeightsSettings = WeightsSettings()
    heldout: HeldoutSettings = HeldoutSettings()
    convergence: ConvergenceSettings | None = None
    """Stop before `steps` on convergence; null: never."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    deadlines: DeadlineSettings = DeadlineSettings()
    experience: ExperienceSettings = ExperienceSettings()
    placement: PlacementSettings = PlacementSettings()
    supervision: SupervisionSettings = SupervisionSettings()
    metrics: MetricsSettings = MetricsSettings()
