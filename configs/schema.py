"""The settings of a run: its own values, and one section for each file of `sections/`.

Rules that involve several settings are in `rules.py`; reading a file, overrides and origins are in `load.py`.
"""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Positive, Section
from dynalign.configs.sections.alarms import AlarmsSettings
from dynalign.configs.sections.algorithm import AlgorithmSettings
from dynalign.configs.sections.capability import CapabilitySettings
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
    """One run.

    Example: `{model: smollm2-135m-instruct, steps: 8, rollout: {prompts_per_step: 4, group_size: 8},
    learner: {ranks: 1}}`.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    """Name of the run, its folder and its coordinator; default: the name of the config file."""
    model: str
    """`smollm2-135m-instruct` (made by `dynalign model fetch`), a Hugging Face folder, or a hub id."""
    runs: str = "runs"
    """Folder that holds the folders of runs; absolute, or relative to where the command runs. All nodes
    must reach it."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of prompt order, sampling and initialization."""
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")] | None = None
    """The day that chat templates print (ISO), fixed for the whole run; null: the day on which the run
    began."""
    steps: Positive = 100
    """Optimizer steps."""
    resume: Literal["auto", "never"] = "auto"
    """`auto` continues an interrupted run of this name; `never` refuses an existing run folder."""
    tensorboard: bool = True
    """Also write TensorBoard event files."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe lines that the driver and the actors log. Libraries log warnings and errors only."""
    prompts: PromptsSettings = PromptsSettings()
    """Where the tasks come from."""
    rollout: RolloutSettings = RolloutSettings()
    """The workers that generate and score candidates."""
    judge: JudgeSettings = JudgeSettings()
    """Who scores, and how."""
    algorithm: AlgorithmSettings = AlgorithmSettings()
    """GRPO, and how old a trained token may be."""
    learner: LearnerSettings = LearnerSettings()
    """The optimizer, its parallelism and its memory."""
    weights: WeightsSettings = WeightsSettings()
    """How a new weight version reaches the engines."""
    heldout: HeldoutSettings = HeldoutSettings()
    """The evaluation on held-out prompts."""
    capability: CapabilitySettings = CapabilitySettings()
    """The probe of abilities that training should leave alone."""
    convergence: ConvergenceSettings | None = None
    """Stop before `steps` when the held-out reward no longer rises; null: never."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """When the state of the run is saved, and what is kept."""
    deadlines: DeadlineSettings = DeadlineSettings()
    """The bound of every wait."""
    experience: ExperienceSettings = ExperienceSettings()
    """Which trained groups are kept."""
    placement: PlacementSettings = PlacementSettings()
    """Which actor runs on which device."""
    supervision: SupervisionSettings = SupervisionSettings()
    """How often an actor that died is replaced."""
    metrics: MetricsSettings = MetricsSettings()
    """The Prometheus endpoint."""
    alarms: AlarmsSettings = AlarmsSettings()
    """What is watched after each step, and what follows."""
