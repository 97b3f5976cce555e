"""Section `alarms`: what each alarm of a run does, and from how many standard errors on."""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Section

AlarmAction = Literal["warn", "pause", "stop"]


class AlarmSettings(Section):
    """One alarm. Example: `{action: pause, threshold: 8.0}`."""

    action: AlarmAction = "warn"
    """`warn`: say so; `pause`: also pause the run after the step, until `dynalign resume`; `stop`: also end
    it after the step, with a checkpoint."""
    threshold: Annotated[float, Field(gt=0.0, le=1000.0)] = 10.0
    """Standard errors at which it fires (docs/alarms.md says of what). Fewer: earlier, with more false
    alarms."""


class AlarmsSettings(Section):
    """What is watched after each step; docs/alarms.md has each alarm's statistic and what it was measured to
    do.

    Example: `{length_gaming: {action: pause}, value_drift: {threshold: 12.0}}`.
    """

    reward_collapse: AlarmSettings = AlarmSettings()
    """The mean reward falls below the best level that it had."""
    capability_loss: AlarmSettings = AlarmSettings(threshold=4.0)
    """A probe of abilities that training should leave alone scores less than before training."""
    prompt_overfitting: AlarmSettings = AlarmSettings(threshold=5.0)
    """The reward on training prompts runs away from that on held-out prompts, both with the system prompt."""
    aspect_imbalance: AlarmSettings = AlarmSettings()
    """The scores of the rubric's aspects move apart."""
    value_drift: AlarmSettings = AlarmSettings()
    """The judge of the run and a second judge part, in mean score or in the order within groups."""
    length_gaming: AlarmSettings = AlarmSettings(threshold=12.0)
    """Within groups, scores follow the length of the answers, or their brevity."""
    low_reliability: AlarmSettings = AlarmSettings(threshold=6.0)
    """The judge's own noise is more than half of the variance from which advantages are computed."""
    self_bias: AlarmSettings = AlarmSettings(threshold=12.0)
    """The judge errs in favour of what the policy says with confidence."""
    unparsed_verdicts: AlarmSettings = AlarmSettings(threshold=6.0)
    """More than 5 % of the verdicts cannot be read."""
    injection: AlarmSettings = AlarmSettings(threshold=6.0)
    """More than 2 % of the answers look like attacks on a judge."""
