"""Several models that score the same candidates, each by itself, settled by a rule
(PoLL, arXiv 2404.18796)."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dynalign.rollout.judges.base import RunJudge
from dynalign.rollout.judges.grading import first_failure
from dynalign.rollout.judges.scoring import Settlement, settled
from dynalign.rollout.records import Opinion, OpinionRole, Verdict
from dynalign.run_folder.run_status import JudgeCost


class Committee:
    """A candidate has a score if every member has scored it. Without that rule a member that fails often
    would lift or lower the candidates that it fails on."""

    compares = False

    def __init__(self, members: Sequence[RunJudge], settle: Settlement) -> None:
        """members: judges that score each candidate by itself."""
        self.name = "+".join(member.name for member in members)
        self.asks_policy = any(member.asks_policy for member in members)
        self._members = tuple(members)
        self._settle: Settlement = settle

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        jobs = (member.score(prompt, texts_G, seed, fresh) for member in self._members)
        by_member = await asyncio.gather(*jobs)
        return [self._settled(verdicts) for verdicts in zip(*by_member, strict=True)]

    def costs(self) -> Mapping[str, JudgeCost]:
        return merged_costs(self._members)

    def _settled(self, verdicts: Sequence[Verdict]) -> Verdict:
        if all(verdict.status == "empty" for verdict in verdicts):
            return Verdict(0.0, "empty")
        opinions = tuple(
            opinion
            for member, verdict in zip(self._members, verdicts, strict=True)
            for opinion in opinions_of(member.name, verdict, "part")
        )
        scores = [verdict.score for verdict in verdicts if verdict.score is not None]
        status = first_failure([verdict.status for verdict in verdicts])
        if status is not None:
            return Verdict(None, status, opinions=opinions)
        return Verdict(settled(scores, self._settle), "parsed", opinions=opinions)


def opinions_of(judge: str, verdict: Verdict, role: OpinionRole) -> tuple[Opinion, ...]:
    """A judge's verdict as opinions in a verdict of several judges: the whole one, then its own parts."""
    whole = Opinion(
        judge,
        verdict.score,
        verdict.status,
        role,
        text=verdict.text,
        digit_probs=verdict.digit_probs_6,
        # Of several rubrics the verdict has the least, which is not that of one distribution.
        digit_mass=None if verdict.digit_probs_6 is None else verdict.digit_mass,
        answers=verdict.answers,
    )
    parts = (each if each.role == "again" else replace(each, role=role) for each in verdict.opinions)
    return (whole, *parts)


def merged_costs(judges: Sequence[RunJudge]) -> dict[str, JudgeCost]:
    """Name → cost of everybody whom these judges ask; a name that several ask is one entry."""
    merged: dict[str, JudgeCost] = {}
    for judge in judges:
        for name, cost in judge.costs().items():
            merged[name] = merged.get(name, JudgeCost()) + cost
    return merged
