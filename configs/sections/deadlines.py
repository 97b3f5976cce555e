"""Section `deadlines`: the bound of every wait."""

from dynalign.configs.section import Seconds, Section


class DeadlineSettings(Section):
    """How long each wait may take, in seconds, and what happens after it.

    Example: `{start_s: 900.0, lease_s: 300.0}`.
    """

    start_s: Seconds = 600.0
    """Starting all actors, with their models loaded."""
    batch_s: Seconds = 1800.0
    """Waiting for a complete batch."""
    step_s: Seconds = 3600.0
    """One step of the learner."""
    lease_s: Seconds = 600.0
    """One group, from lease to scored; after it the group is issued again."""
    checkpoint_s: Seconds = 1800.0
    """Writing or reading one checkpoint."""
    stop_s: Seconds = 120.0
    """After SIGTERM or SIGINT: finishing the current step, writing its checkpoint, and ending all actors.
    After it the run ends at once, with the checkpoint before."""
    place_s: Seconds = 1800.0
    """Waiting for free resources in the cluster, while no rollout worker is ready or the learner cannot be
    scheduled."""
    drain_s: Seconds = 300.0
    """A worker that is scaled away finishing its groups; after it the worker is ended and its groups are
    issued again."""
    group_s: Seconds = 1800.0
    """One group in a worker that is alive, from lease to report; after it its engine counts as hanging, and
    the worker is replaced."""
    silence_s: Seconds = 60.0
    """No sign of life from a worker or a ledger; after it the actor counts as dead, and is replaced."""
