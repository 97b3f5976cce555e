"""Asks a judge, its vetoes and its probes for all scores of a check."""

import asyncio
import time
from collections.abc import Callable, Sequence

from dynalign.evaluation.judge_check.seconds import MemberAnswers
from dynalign.evaluation.judge_check.sheet import AskedGroup, GivenScores, JudgeAnswers
from dynalign.rollout.engine.base import request_seed
from dynalign.rollout.judges.base import Judge
from dynalign.rollout.judges.make import SecondJudges
from dynalign.rollout.records import Verdict


async def ask(
    judge: Judge,
    name: str,
    groups: Sequence[AskedGroup],
    seed: int,
    in_flight: int,
    progress: Callable[[int], None] = lambda groups: None,
) -> JudgeAnswers:
    """One judge's scores of all groups; the policy's candidates are scored twice.

    The second time they come in the reverse order, with another seed and without cached key-values: what
    differs then is the judge's noise, or the place in the group. in_flight: groups that are scored at the
    same time. progress: called with the number of groups that are done.

    Raises EngineError when the judge's engine fails."""
    free = asyncio.Semaphore(in_flight)
    started_s = time.monotonic()
    unread: list[str] = []
    done = 0

    def scores(verdicts: Sequence[Verdict]) -> tuple[float | None, ...]:
        unread.extend(verdict.text or "no text" for verdict in verdicts if verdict.score is None)
        return tuple(verdict.score for verdict in verdicts)

    async def given(group: AskedGroup) -> GivenScores:
        nonlocal done
        async with free:
            texts = group.texts_G
            first_seed = request_seed(seed, "judge check", group.prompt_id, group.kind)
            first = scores(await judge.score(group.prompt, texts, first_seed))
            again: tuple[float | None, ...] = ()
            if group.kind == "candidates":
                other_seed = request_seed(seed, "judge check again", group.prompt_id)
                reverse = await judge.score(group.prompt, texts[::-1], other_seed, fresh=True)
                again = scores(reverse)[::-1]
        done += 1
        progress(done)
        return GivenScores(first, again)

    answers = await asyncio.gather(*map(given, groups))
    return JudgeAnswers(name, tuple(answers), time.monotonic() - started_s, unread[0] if unread else None)


async def ask_members(
    judge: Judge,
    seconds: SecondJudges,
    name: str,
    probes: Sequence[str],
    groups: Sequence[AskedGroup],
    seed: int,
    in_flight: int,
    progress: Callable[[str], Callable[[int], None]],
) -> MemberAnswers:
    """The scores of a judge and its vetoes of all groups, and those of its probes of the candidates.

    name: of the judge on the card. probes: the names of its probes. progress: from what is counted to a
    function that takes the number so far. Errors as of `ask`."""

    async def asked(member: Judge, named: str, of: Sequence[AskedGroup], draw: int) -> JudgeAnswers:
        return await ask(
            member, named, of, draw, in_flight, progress(f"of {len(of)} groups scored by {named}")
        )

    own = await asked(judge, name, groups, seed)
    vetoes = [
        await asked(veto, veto.name, groups, request_seed(seed, "veto", veto.name)) for veto in seconds.vetoes
    ]
    candidates = [group for group in groups if group.kind == "candidates"]
    beside = [
        await asked(probe, named, candidates, request_seed(seed, "probe", named))
        for named, probe in zip(probes, seconds.probes, strict=True)
    ]
    return MemberAnswers(name, own, tuple(vetoes), tuple(beside), seconds.probe_fraction)
