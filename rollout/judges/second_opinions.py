"""How the scores of second judges enter a verdict: a veto may lower it, a probe stands beside it."""

from collections.abc import Mapping
from dataclasses import replace

from dynalign.rollout.judges.committee import opinions_of
from dynalign.rollout.judges.grading import first_failure
from dynalign.rollout.judges.scoring import vetoed
from dynalign.rollout.records import Verdict


def with_vetoes(judge: str, verdict: Verdict, vetoes: Mapping[str, Verdict]) -> Verdict:
    """A verdict with a score, under the vetoes of other judges.

    judge: whose verdict it is. vetoes: name → its verdict on the same candidate. The score, and the second
    one of the noise probe, are lowered to the lowest of the vetoes and never raised. A veto without a score
    leaves the candidate without one: whether it would have lowered the score is not known."""
    opinions = opinions_of(judge, verdict, "part")
    for name, veto in vetoes.items():
        opinions += opinions_of(name, veto, "veto")
    failure = first_failure([verdict.status, *(veto.status for veto in vetoes.values())])
    if failure is not None or verdict.score is None:
        return replace(
            verdict, score=None, score_again=None, status=failure or verdict.status, opinions=opinions
        )
    scores = [veto.score for veto in vetoes.values() if veto.score is not None]
    again = None if verdict.score_again is None else vetoed(verdict.score_again, scores)
    return replace(verdict, score=vetoed(verdict.score, scores), score_again=again, opinions=opinions)


def with_probe(verdict: Verdict, name: str, probe: Verdict) -> Verdict:
    """A verdict with the opinion of a judge that was asked beside; nothing else of it changes."""
    return replace(verdict, opinions=(*verdict.opinions, *opinions_of(name, probe, "probe")))
