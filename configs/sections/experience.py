"""Section `experience`: which trained groups are kept."""

from dynalign.configs.section import NotNegative, Section


class ExperienceSettings(Section):
    """The trained groups, kept so that every reward can be derived again offline."""

    keep_steps: NotNegative | None = None
    """Newest steps whose groups stay in `experience/`; null: all of them; 0: none."""
