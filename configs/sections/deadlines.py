"""Section `deadlines`: the bound of every wait."""

from dynalign.configs.section import Seconds, Section


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
