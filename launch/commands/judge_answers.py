"""The engine of a judge check: in this process, it writes the policy's candidates and answers the judges that
ask the policy. Endpoints and the model of `judge.pool` are asked with a journal beside the card."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.configs.sections.judge import FROZEN, POOL
from dynalign.configs.sections.pool import PoolSettings
from dynalign.endpoint.preflight import Need
from dynalign.evaluation.attacks.corpus import sampled
from dynalign.evaluation.judge_check.asking import ask_members
from dynalign.evaluation.judge_check.candidates import sample_candidates
from dynalign.evaluation.judge_check.lift import attack_groups
from dynalign.evaluation.judge_check.planted import TIERS
from dynalign.evaluation.judge_check.seconds import MemberAnswers
from dynalign.evaluation.judge_check.sheet import AskedGroup, GoodAnswers, first_with_text, sheet
from dynalign.evaluation.judge_check.variants import PADDING, VARIANTS
from dynalign.launch.judge_endpoints import endpoint_uses
from dynalign.launch.offline_askers import OpenPool, OpenRay, open_askers
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import Engine
from dynalign.rollout.engine_asker import EngineAsker
from dynalign.rollout.judges.base import judge_tokens
from dynalign.rollout.judges.make import make_judge, make_second_judges
from dynalign.rollout.judges.respondents import AskedModel
from dynalign.rollout.judges.value_texts import ValueTexts, as_data
from dynalign.rollout.prompts import Prompt
from dynalign.rollout.weights.version import version_label
from dynalign.run_folder import layout

PURPOSE = "judge check"
"""Under which its questions are accounted."""
_MOST_TEXTS = 12
"""Planted answers, or variants of one, that are judged together."""
_FORMS_TOKENS = 64
"""Bullets, marks and replaced words can make a text this much longer."""


@dataclass(frozen=True)
class NamedJudge:
    """A judge that is checked: `NamedJudge("self, expected, unified", run, texts)`."""

    name: str
    """Its name on the card."""
    run: RunSettings
    """The settings of the run, with this judge."""
    texts: ValueTexts
    """Its rubric and definition."""

    @property
    def probes(self) -> tuple[str, ...]:
        """The names of its probes on the card."""
        judge = self.run.judge
        return (*judge.probes, *((f"{judge.scorers[0]} by aspects",) if judge.probe_factorized else ()))

    @property
    def vetoes(self) -> tuple[str, ...]:
        """Who scores every answer as well; a panel's vetoes are stances of its own."""
        return () if self.run.judge.kind == "panel" else self.run.judge.veto


@dataclass(frozen=True)
class CheckedRun:
    """All that a check starts from: `CheckedRun(run, judges, model, contexts, prompts, folder, None)`."""

    run: RunSettings
    """The settings of the run."""
    judges: tuple[NamedJudge, ...]
    """The judge of the run first."""
    model: Path
    """The policy's folder."""
    contexts: Contexts
    """With which candidates are sampled and judges are asked."""
    prompts: tuple[Prompt, ...]
    """Held-out ones."""
    folder: Path
    """Where the card goes."""
    good: GoodAnswers | None
    """Good answers that were given; None: the policy's own are used."""
    answers_file: str | None = None
    """The file of those that were given."""
    attacks: int = 0
    """Attacks of every family per prompt."""

    @property
    def endpoints(self) -> Mapping[str, EndpointSettings]:
        """Of all judges, by name."""
        return {name: each for judge in self.judges for name, each in judge.run.judge.endpoints.items()}

    @property
    def needs(self) -> Mapping[str, tuple[Need, ...]]:
        """What each endpoint has to do for any of the judges."""
        found: dict[str, tuple[Need, ...]] = {}
        for judge in self.judges:
            for name, use in endpoint_uses(judge.run).items():
                found[name] = tuple(dict.fromkeys((*found.get(name, ()), *use.needs)))
        return found

    @property
    def pools(self) -> Mapping[str, PoolSettings]:
        """Other models that judges ask on engines of their own. The initial policy is asked on the one that
        writes the candidates."""
        pools = [judge.run.judge.pool for judge in self.judges]
        others = [pool for pool in pools if pool is not None and pool.model is not None]
        return {POOL: others[0]} if others else {}


@dataclass(frozen=True)
class CheckAnswers:
    """What was judged, and how: `CheckAnswers(groups, (MemberAnswers(…),))`."""

    groups: tuple[AskedGroup, ...]
    """The texts."""
    members: tuple[MemberAnswers, ...]
    """The scores of each judge, its vetoes and its probes."""


async def judge_answers(
    checked: CheckedRun,
    progress: Callable[[str], Callable[[int], None]],
    open_pool: OpenPool | None = None,
    open_ray: OpenRay | None = None,
) -> CheckAnswers:
    """Starts the engine, samples the candidates, asks every judge, and ends the engine.

    progress: from what is counted to a function that takes the number so far. open_pool, open_ray: as of
    `open_askers`. Raises what that raises, EngineError when the engine fails, and BudgetReached; what was
    answered until then is in the journal."""
    run = checked.run
    limit = _context_limit(checked)
    journal = checked.folder / layout.ANSWERS
    async with open_askers(
        checked.endpoints, journal, PURPOSE, checked.pools, "judge.endpoints", checked.needs,
        open_pool=open_pool, open_ray=open_ray,
    ) as opened:  # fmt: skip
        engine = await _engine(checked, limit)
        try:
            groups = await _sheet(checked, engine)
            policy = EngineAsker(checked.model.name, engine, checked.contexts, limit)
            askers = {FROZEN: AskedModel(policy, checked.model.name)} | dict(opened.askers)
            members = []
            for each in checked.judges:
                parts = (engine, checked.contexts, each.texts, each.run.judge, limit, askers)
                seconds = make_second_judges(*parts)
                in_flight = run.rollout.groups_in_flight
                members.append(
                    await ask_members(
                        make_judge(*parts), seconds, each.name, each.probes, groups, run.seed, in_flight,
                        progress,
                    )
                )  # fmt: skip
                opened.stop_at_the_wall()
        finally:
            await engine.close()
    if opened.endpoints:
        click.echo(opened.line(), err=True)
    return CheckAnswers(groups, tuple(members))


async def _sheet(checked: CheckedRun, engine: Engine) -> tuple[AskedGroup, ...]:
    """What is judged: planted answers, their variants, the policy's candidates, and attacks."""
    candidates = await sample_candidates(engine, checked.contexts, checked.run, checked.prompts)
    good = checked.good or GoodAnswers(first_with_text(candidates), {})
    planted = sheet(checked.prompts, candidates, good, checked.run.seed)
    return (*planted, *_attack_groups(checked, good.answers))


def most_scores(checked: CheckedRun) -> tuple[int, int]:
    """Scores that each judge, and each veto, is asked for at most: in all, and of them those of attacks."""
    per_prompt = len(TIERS) + len(VARIANTS) + 1 + 2 * checked.run.rollout.group_size
    attacks = sum(
        len(group.texts_G)
        for group in _attack_groups(checked, {each.id: "an answer" for each in checked.prompts})
    )
    return per_prompt * len(checked.prompts) + attacks, attacks


def _attack_groups(checked: CheckedRun, answers: Mapping[str, str]) -> Iterator[AskedGroup]:
    """Of each prompt that has a good answer; the sample is the same for the same seed."""
    dealt = sampled(checked.attacks, len(checked.prompts), checked.run.seed)
    size = checked.run.rollout.group_size
    for prompt, attacks in zip(checked.prompts, dealt, strict=True):
        if answers.get(prompt.id, "").strip():
            yield from attack_groups(prompt.id, prompt.prompt, answers[prompt.id], attacks, size)


def _attack_tokens(checked: CheckedRun) -> int:
    """Tokens that attacks add to a context: the longest one, or all of a group that is ranked together."""
    controls = checked.contexts.controls
    ranked = any(each.run.judge.kind == "ranked" for each in checked.judges)
    tokens = [
        [len(controls.encode(as_data(text))) for text in group.texts_G]
        for group in _attack_groups(checked, {each.id: "an answer" for each in checked.prompts})
    ]
    return max((sum(each) if ranked else max(each) for each in tokens), default=0)


def _context_limit(checked: CheckedRun) -> int:
    """Tokens that the engine holds per sequence: what a run needs, and what variants or attacks add."""
    longest = max(
        judge_tokens(checked.contexts, each.texts, _with_groups(each.run)) for each in checked.judges
    )
    given = (
        () if checked.good is None else (*checked.good.answers.values(), *checked.good.paraphrases.values())
    )
    allowed = 2 * checked.run.rollout.max_completion_tokens
    most = max((len(checked.contexts.encoded(text)) for text in given), default=0)
    padding = len(checked.contexts.encoded(PADDING))
    return longest + max(0, most - allowed) + max(padding, _attack_tokens(checked)) + _FORMS_TOKENS


def _with_groups(run: RunSettings) -> RunSettings:
    """The run with as many candidates in a group as a check shows together."""
    size = max(run.rollout.group_size, _MOST_TEXTS)
    return run.model_copy(update={"rollout": run.rollout.model_copy(update={"group_size": size})})


async def _engine(checked: CheckedRun, limit: int) -> Engine:
    """The engine with the initial policy. One of vLLM is imported here, since that takes half a minute."""
    run = checked.run
    label = version_label(1, 0)
    if run.rollout.engine == "deterministic":
        from dynalign.rollout.engine.deterministic import DeterministicEngine

        tokenizer = checked.contexts.tokenizer
        size = len(tokenizer)
        return DeterministicEngine(range(size // 2, size), tokenizer.eos_token_id, label)
    from dynalign.rollout.engine.vllm import VllmEngine

    return await VllmEngine.start(str(checked.model), run.rollout, limit, label, run.seed)
