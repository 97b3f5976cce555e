"""Steps whose loss or gradient is not finite: they change no weight, and a few in a row end the run."""

from dynalign.configs.errors import RunFailed, StepNotFinite

MOST_SKIPPED = 3
"""Steps in a row that may be skipped. Each is drawn again with other samples; a policy that has diverged
gives no finite step any more."""


class SkippedSteps:
    """How many were skipped in a row."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def trained(self) -> None:
        """A step was finite."""
        self._in_a_row = 0

    def skipped(self, step: StepNotFinite) -> str:
        """What a person should know of one more. Raises RunFailed after MOST_SKIPPED in a row."""
        self._in_a_row += 1
        notice = f"{step}; skipped {self._in_a_row} in a row"
        if self._in_a_row >= MOST_SKIPPED:
            raise RunFailed(f"{notice}; lower learner.learning_rate, or look at the rewards")
        return notice
