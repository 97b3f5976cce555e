"""From what judges answered to the scores of a group again, by the same arithmetic, on its records alone.

    evidence     a distribution over the grades, or raw answers ─► the score of one verdict or opinion
    composition  aspects, models, stances, rankings, vetoes ─► the score of the candidate

What a function of the user's or an earlier format leaves without evidence stands by itself, and is counted.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal, NamedTuple, cast

from dynalign.rollout.judges.grading import first_failure
from dynalign.rollout.judges.scoring import (
    Aggregation,
    Settlement,
    aggregate_aspects,
    expectation,
    order_scores,
    parse_order,
    sampled_score,
    settled,
    vetoed,
)
from dynalign.rollout.records import Candidate, Group, Opinion, ParseStatus, ScoringRules, Verdict
from dynalign.rollout.withheld import withheld_reason

TOLERANCE = 1e-9
"""In points. The same machine gives the same bits; another one may round a root or a power otherwise."""


class Difference(NamedTuple):
    """What is not as the records say: Difference(3, "score", recorded=3.5, derived=3.25)."""

    candidate: int | None
    """Its number in the group, from 0; None for what belongs to the whole group."""
    what: str
    """`score`, `status`, `score_again`, an opinion, …"""
    recorded: float | str | None
    """What the record says."""
    derived: float | str | None
    """What follows from the rest of it."""


class Rederived(NamedTuple):
    """What came of one group: Rederived(differences=(), by_themselves=0)."""

    differences: tuple[Difference, ...]
    """In the order of the candidates."""
    by_themselves: int
    """Candidates whose score follows from nothing that is recorded."""


class _Score(NamedTuple):
    score: float | None
    status: ParseStatus


def rederived(group: Group, rules: ScoringRules, samples: int) -> Rederived:
    """Derives every score and status of the group, and whether it may be trained on.

    rules: by which it was scored. samples: verdicts per candidate, to take apart the answers of a record of
    an earlier format."""
    found = list(_rankings(group))
    alone = 0
    for index, candidate in enumerate(group.candidates_G):
        try:
            differences, stands_alone = _candidate(index, candidate, rules, samples)
        except (ValueError, IndexError) as error:  # parts that no judge leaves together
            recorded = candidate.verdict.score
            differences = [Difference(index, "score", recorded, f"nothing, since its parts give {error}")]
            stands_alone = False
        found += differences
        alone += stands_alone
    lengths_G = [len(candidate.text.strip()) for candidate in group.candidates_G]
    reason = withheld_reason([each.verdict for each in group.candidates_G], group.noise_std, lengths_G)
    found += _differing(None, "withheld", group.withheld_reason, reason)
    return Rederived(tuple(found), alone)


def _candidate(
    index: int, candidate: Candidate, rules: ScoringRules, samples: int
) -> tuple[list[Difference], bool]:
    """What differs, and whether the score follows from nothing that is recorded."""
    verdict = candidate.verdict
    found = list(_opinions(index, verdict.opinions, rules))
    derived = _whole(candidate, rules, samples)
    if derived is not None:
        found += _differing(index, "score", verdict.score, derived.score)
        found += _differing(index, "status", verdict.status, derived.status)
    return found + _again(index, verdict), derived is None


def differs(recorded: float | str | None, derived: float | str | None) -> bool:
    """Whether two values differ by more than rounding."""
    if isinstance(recorded, float | int) and isinstance(derived, float | int):
        return abs(recorded - derived) > TOLERANCE
    return recorded != derived


def _differing(
    candidate: int | None, what: str, recorded: float | str | None, derived: float | str | None
) -> list[Difference]:
    wrong = differs(recorded, derived)
    return [Difference(candidate, what, recorded, derived)] if wrong else []


def _evidence(
    probs: Sequence[float] | None, mass: float | None, answers: Sequence[str], rules: ScoringRules
) -> _Score | None:
    """The score of one distribution, or of raw answers; None without either, or for a distribution over
    other grades."""
    if probs is not None:
        if len(probs) != len(rules.grades):
            return None
        if mass is not None and mass < rules.min_digit_mass:
            return _Score(None, "unparsed")
        return _Score(expectation(probs, rules.grades), "parsed")
    if not answers:
        return None
    score = sampled_score(answers, rules.grades)
    return _Score(score, "unparsed" if score is None else "parsed")


def _opinions(candidate: int, opinions: Sequence[Opinion], rules: ScoringRules) -> Iterable[Difference]:
    """Opinions with evidence of their own, or with aspects behind them."""
    for place, opinion in enumerate(opinions):
        if opinion.position is not None or opinion.status in ("empty", "unreachable"):
            continue
        derived = _evidence(opinion.digit_probs, opinion.digit_mass, opinion.answers, rules)
        if derived is None and not opinion.rubric and not opinion.stance:
            derived = _aspects(_behind(opinions[place + 1 :]), rules)
        if derived is not None:
            name = " ".join(filter(None, (opinion.role, opinion.judge, opinion.stance, opinion.rubric)))
            yield from _differing(candidate, name, opinion.score, derived.score)
            yield from _differing(candidate, f"{name}: status", opinion.status, derived.status)


def _behind(opinions: Sequence[Opinion]) -> list[Opinion]:
    """The aspects that follow a whole score."""
    wholes = (place for place, opinion in enumerate(opinions) if not opinion.rubric)
    return list(opinions[: next(wholes, len(opinions))])


def _aspects(aspects: Sequence[Opinion], rules: ScoringRules) -> _Score | None:
    if not aspects:
        return None
    failure = first_failure([each.status for each in aspects])
    if failure is not None:
        return _Score(None, failure)
    scores = [each.score for each in aspects if each.score is not None]
    return _Score(aggregate_aspects(scores, cast(Aggregation, rules.aggregate)), "parsed")


def _whole(candidate: Candidate, rules: ScoringRules, samples: int) -> _Score | None:
    """The candidate's score, vetoes included; None where it stands by itself."""
    verdict = candidate.verdict
    if rules.kind != "function" and not candidate.text.strip():
        return _Score(0.0, "empty")
    vetoes = _vetoes(verdict)
    parts = [each for each in verdict.opinions if each.role == "part"]
    if not vetoes:
        return _own(verdict, parts, rules, samples)
    before = parts[0]
    own = _own(verdict, parts[1:], rules, samples) or _Score(before.score, before.status)
    failure = first_failure([own.status, *(veto.status for veto in vetoes)])
    if failure is not None or own.score is None:
        return _Score(None, failure or own.status)
    return _Score(vetoed(own.score, [veto.score for veto in vetoes if veto.score is not None]), own.status)


def _vetoes(verdict: Verdict) -> list[Opinion]:
    """The whole scores of the judges that may lower the verdict's."""
    return [each for each in verdict.opinions if each.role == "veto" and not each.stance and not each.rubric]


def _own(verdict: Verdict, parts: Sequence[Opinion], rules: ScoringRules, samples: int) -> _Score | None:
    """The score of the run's judge before any veto."""
    stances = [each for each in verdict.opinions if each.stance and each.role in ("part", "veto")]
    if rules.kind == "function":
        return None
    if stances:
        return _panel(stances, rules)
    if any(each.position is not None for each in parts):
        return _ranked(parts)
    if parts and all(each.rubric for each in parts):
        return _aspects(parts, rules)
    members = [each for each in parts if not each.rubric]
    if members:
        return _settled(members, rules)
    answers = verdict.answers
    if not answers and rules.scorer == "sampled" and verdict.text is not None:
        lines = verdict.text.split("\n")
        answers = tuple(lines) if len(lines) == samples else ()
    found = _evidence(verdict.digit_probs_6, verdict.digit_mass, answers, rules)
    return _Score(None, verdict.status) if found is None and verdict.score is None else found


def _settled(members: Sequence[Opinion], rules: ScoringRules) -> _Score:
    failure = first_failure([each.status for each in members])
    if failure is not None:
        return _Score(None, failure)
    scores = [each.score for each in members if each.score is not None]
    return _Score(settled(scores, cast(Settlement, rules.settle)), "parsed")


def _panel(stances: Sequence[Opinion], rules: ScoringRules) -> _Score:
    last = max(each.round for each in stances)
    final = [each for each in stances if each.round == last]
    failure = first_failure([each.status for each in final])
    if failure is not None:
        return _Score(None, failure)

    def scores(role: Literal["part", "veto"]) -> list[float]:
        return [each.score for each in final if each.role == role and each.score is not None]

    return _Score(vetoed(settled(scores("part"), cast(Settlement, rules.settle)), scores("veto")), "parsed")


def _ranked(rankings: Sequence[Opinion]) -> _Score:
    scores = [each.score for each in rankings if each.score is not None]
    if scores:
        return _Score(fmean(scores), "parsed")
    return _Score(None, first_failure([each.status for each in rankings]) or "unparsed")


def _rankings(group: Group) -> Iterable[Difference]:
    """The scores of each ranking, from its raw answer and the places at which the candidates were shown."""
    by_candidate = {
        index: [o for o in candidate.verdict.opinions if o.position is not None and o.role == "part"]
        for index, candidate in enumerate(group.candidates_G)
    }
    ranked = {index: opinions for index, opinions in by_candidate.items() if opinions}
    for sample in range(min(map(len, ranked.values()), default=0)):
        opinions = {index: each[sample] for index, each in ranked.items()}
        shown = sorted(opinions, key=lambda index: opinions[index].position or 0)
        raw = opinions[shown[0]].answers
        if not raw:
            continue
        best_first = parse_order(raw[0], len(shown))
        scores = {} if best_first is None else order_scores(best_first, shown, len(group.candidates_G))
        for index, opinion in opinions.items():
            yield from _differing(index, f"ranking {sample}", opinion.score, scores.get(index))


def _again(candidate: int, verdict: Verdict) -> list[Difference]:
    """The second score, from the opinion that holds it, under the same vetoes."""
    again = [each for each in verdict.opinions if each.role == "again"]
    if not again:
        return []
    derived = again[0].score
    vetoes = _vetoes(verdict)
    if vetoes and derived is not None:
        lowest = [veto.score for veto in vetoes if veto.score is not None]
        derived = None if verdict.score is None else vetoed(derived, lowest)
    return _differing(candidate, "score_again", verdict.score_again, derived)
