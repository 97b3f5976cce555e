"""Why a scored group is not to be trained on."""

from collections.abc import Sequence

from dynalign.rollout.judges.scoring import carries_signal, enough_parsed
from dynalign.rollout.ledger.values import JUDGE_UNREACHABLE
from dynalign.rollout.records import Verdict


def withheld_reason(
    verdicts_G: Sequence[Verdict], noise: float | None, lengths_G: Sequence[int]
) -> str | None:
    """Why a group cannot be trained on, None if it can.

    noise: the judge's own, in points. lengths_G: characters of each answer.

    `empty`: no candidate has a text. `judge_unreachable`: too few scores, and enough if no call had failed.
    `unparsed`: too few readable verdicts. `low_signal`: no spread beyond the judge's noise."""
    if not any(lengths_G):
        return "empty"
    scores_G = [verdict.score for verdict in verdicts_G]
    if not enough_parsed(scores_G):
        reached_G = [0.0 if verdict.status == "unreachable" else verdict.score for verdict in verdicts_G]
        return JUDGE_UNREACHABLE if enough_parsed(reached_G) else "unparsed"
    return None if carries_signal(scores_G, noise) else "low_signal"


def first_failed_call(verdicts_G: Sequence[Verdict]) -> str | None:
    """The cause of the first call that failed, of a judge or of one among several."""
    failed = [verdict for verdict in verdicts_G if verdict.status == "unreachable"]
    texts = [verdict.text for verdict in failed]
    texts += [each.text for verdict in failed for each in verdict.opinions if each.status == "unreachable"]
    return next((text for text in texts if text), None)
