"""What `dynalign judge check` found, remembered for `train`: beside the content of model and rubric, and the
judge's settings.

A check is of one model, one rubric and one way of scoring. Another of these is another judge, which was not
checked.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from dynalign.configs.errors import UserError
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.configs.user_paths import cache_folder
from dynalign.evaluation.judge_check.bar import MOST_UNREAD, bar_in_words, orders_well, reaches_bar
from dynalign.run_folder import durable

_NOT_OF_THE_JUDGE = {
    "noise_fraction",
    "values",
    "probes",
    "probe_factorized",
    "probe_fraction",
    "function_s",
    "failed_again",
}
"""Settings that change no score. The texts in the folder `values` are known by their content."""


@dataclass(frozen=True)
class CheckedJudge:
    """What is remembered of a check.

    Example: `CheckedJudge(0.61, 0.48, 0.0, 16, "2026-12-01", "runs/quickstart-judge/judge.html")`.
    """

    auc: float | None
    """Of the good answer against spoiled ones; None where it could not be measured."""
    low: float | None
    """The lower end of its 95 % interval."""
    unread: float
    """Share of the scores that could not be read."""
    prompts: int
    """Held-out prompts."""
    day: str
    """When, as YYYY-MM-DD."""
    card: str
    """Path of the card's page."""


def remember(content: Mapping[str, str], judge: JudgeSettings, found: CheckedJudge) -> None:
    """Keeps a finding. content: the hashes of model and value texts. Without a cache nothing is kept."""
    file = _file(content, judge)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        durable.write(file, json.dumps(asdict(found)) + "\n")


def recall(content: Mapping[str, str], judge: JudgeSettings) -> CheckedJudge | None:
    """The newest finding about this judge; None if it was never checked, or the file cannot be read."""
    file = _file(content, judge)
    if file is not None:
        with suppress(OSError, ValueError, TypeError):
            return CheckedJudge(**json.loads(file.read_text("utf-8")))
    return None


def judge_notes(settings: RunSettings, content: Mapping[str, str]) -> tuple[str, ...]:
    """The one line that a run with `judge.kind=self` is warned with; nothing for a judge above the bar.

    content: the hashes of model and value texts; empty where they are not known yet."""
    if settings.judge.kind != "self" or not content:
        return ()
    found = recall(content, settings.judge)
    if found is None:
        return (
            "judge.kind=self: this judge was never checked; `dynalign judge check` says what it is worth",
        )
    if reaches_bar(found.auc, found.low, found.unread):
        return ()
    return (f"judge.kind=self: {_shortfall(found)}; see {found.card} of {found.day}",)


def _shortfall(found: CheckedJudge) -> str:
    """By what a judge is below the bar."""
    if found.auc is None:
        return f"its AUC could not be measured, and should be {bar_in_words()}"
    if orders_well(found.auc, found.low):
        return f"{found.unread:.0%} of its scores could not be read, and at most {MOST_UNREAD:.0%} should be"
    low = "unknown" if found.low is None else f"{found.low:.2f}"
    measured = f"its AUC is {found.auc:.2f} (lower end {low}, {found.prompts} prompts)"
    return f"{measured}, and should be {bar_in_words()}"


def _file(content: Mapping[str, str], judge: JudgeSettings) -> Path | None:
    described = judge.model_dump(mode="json", exclude=_NOT_OF_THE_JUDGE | {"endpoints"})
    if judge.endpoints:
        described["endpoints"] = {name: endpoint.model for name, endpoint in judge.endpoints.items()}
    identity = json.dumps([sorted(content.items()), described], sort_keys=True)
    try:
        folder = cache_folder() / "dynalign" / "checked-judges"
    except UserError:
        return None
    return folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.json"
