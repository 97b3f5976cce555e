"""Section `experience`: which trained groups are kept."""

from dynalign.configs.section import NotNegative, Section


class ExperienceSettings(Section):
    """Trained groups are kept in files, so that rewards can be computed again without the run.

    Example: `{keep_steps: 100}`.
    """

    keep_steps: NotNegative | None = None
    """Newest steps whose groups stay in the folder `experience`; null: all of them; 0: none."""
