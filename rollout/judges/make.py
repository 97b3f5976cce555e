"""From the settings to the judges that they name: where a new judge is registered."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.refusals import did_you_mean
from dynalign.configs.sections.judge import FROZEN, SELF, JudgeSettings, stance_parts
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import Engine
from dynalign.rollout.judges.base import RunJudge
from dynalign.rollout.judges.committee import Committee
from dynalign.rollout.judges.expected import ExpectedGrader
from dynalign.rollout.judges.function import FunctionJudge, load_function
from dynalign.rollout.judges.grading import Grader
from dynalign.rollout.judges.panel import PanelJudge, PanelRules, Stance
from dynalign.rollout.judges.persistent import Again, PersistentGrader
from dynalign.rollout.judges.ranked import RankedJudge
from dynalign.rollout.judges.respondents import AskerRespondent, Askers, EngineRespondent, Respondent
from dynalign.rollout.judges.rubric_judge import RubricJudge
from dynalign.rollout.judges.sampled import SampledGrader
from dynalign.rollout.judges.value_texts import ValueTexts

NO_ASKERS: Askers = MappingProxyType({})
"""For a run that asks no endpoint and no pool."""


@dataclass(frozen=True)
class SecondJudges:
    """Who scores beside the run's judge. Example: `SecondJudges(vetoes=(frozen,), probe_fraction=0.0)`."""

    vetoes: tuple[RunJudge, ...] = ()
    """Each scores every candidate, and may lower its score."""
    probes: tuple[RunJudge, ...] = ()
    """Each scores a sample of the groups, and changes nothing."""
    probe_fraction: float = 0.0
    """The share of the groups in that sample."""


def missing_askers(settings: JudgeSettings, known: Collection[str]) -> list[Mistake]:
    """A mistake for each name that the judge asks and that no endpoint or pool has.

    known: the names of endpoints and pools; `frozen` among them where the initial policy can be asked."""
    places = {"models": settings.models, "veto": settings.veto, "probes": settings.probes}
    if settings.kind == FROZEN:
        places["kind"] = (FROZEN,)
    if settings.kind == "panel":
        places["veto"] = ()
        places["stances"] = settings.scorers
    has = f"there are {', '.join(sorted(known))}" if known else "there is none"
    mistakes = []
    for place, names in places.items():
        for name in names:
            if name in known or name == SELF:
                continue
            rule = f"asks {name}, and no endpoint or pool has this name ({has})"
            close = did_you_mean(name, (*known, SELF))
            remedy = (
                f"did you mean {close}?"
                if close
                else "configure it under judge.endpoints, or name another one"
            )
            if name == FROZEN:
                rule = "asks the initial policy, which the rollout engines do not hold once they train"
                remedy = "train an adapter (learner.lora={} weights.content=adapter), or give it a pool"
            mistakes.append(Mistake(f"judge.{place}", name, rule, remedy))
    return mistakes


def make_judge(
    engine: Engine,
    contexts: Contexts,
    texts: ValueTexts,
    settings: JudgeSettings,
    context_limit: int,
    askers: Askers = NO_ASKERS,
    holds_initial: bool = False,
) -> RunJudge:
    """The judge of a run.

    engine: which a judge that asks the policy asks. context_limit: tokens that this engine holds per
    sequence. askers: the endpoints and pools that judges may ask. holds_initial: whether the engine can
    answer as the initial policy, without its adapter.

    Raises UserError when the settings' function cannot be loaded, when nobody has a name that is asked, or
    when the tokenizer lacks single-token digits for `expected`."""
    return _Maker(engine, contexts, texts, settings, context_limit, askers, holds_initial).judge()


def make_second_judges(
    engine: Engine,
    contexts: Contexts,
    texts: ValueTexts,
    settings: JudgeSettings,
    context_limit: int,
    askers: Askers = NO_ASKERS,
    holds_initial: bool = False,
) -> SecondJudges:
    """The judges beside it. Parameters and errors: see `make_judge`."""
    return _Maker(engine, contexts, texts, settings, context_limit, askers, holds_initial).second_judges()


NO_SECONDS = SecondJudges()
"""For a run without vetoes and probes."""


@dataclass(frozen=True)
class _Maker:
    engine: Engine
    contexts: Contexts
    texts: ValueTexts
    settings: JudgeSettings
    context_limit: int
    askers: Askers
    holds_initial: bool

    def judge(self) -> RunJudge:
        settings = self.settings
        match settings.kind:
            case "function":
                name = settings.function or ""
                return FunctionJudge(load_function(name), name, settings.function_s)
            case "panel":
                return self._panel()
            case "ranked":
                (name,) = settings.scorers
                respondent = self._respondent(name)
                alone = self._rubric_judge(respondent)
                return RankedJudge(respondent, self.texts, settings, alone)
            case _:
                return self._scoring(settings.scorers)

    def second_judges(self) -> SecondJudges:
        settings = self.settings
        vetoes = () if settings.kind == "panel" else settings.veto
        probes = [self._scoring([name]) for name in settings.probes]
        if settings.probe_factorized:
            aspects = replace(self.texts, rubrics=self.texts.probe_rubrics)
            probes.append(self._rubric_judge(self._respondent(settings.scorers[0]), aspects))
        return SecondJudges(
            tuple(self._scoring([name]) for name in vetoes), tuple(probes), settings.probe_fraction
        )

    def _scoring(self, names: Sequence[str]) -> RunJudge:
        """One or several models that score each candidate by itself."""
        members = [self._rubric_judge(self._respondent(name)) for name in names]
        return members[0] if len(members) == 1 else Committee(members, self.settings.settle)

    def _panel(self) -> PanelJudge:
        settings = self.settings
        respondents = {name: self._respondent(name) for name in settings.scorers}
        stances = [
            Stance(name, self._grader(respondents[whom]), name in settings.veto)
            for name, whom in map(stance_parts, settings.stances)
        ]
        rules = PanelRules(settings.rounds, settings.settle, settings.grades)
        return PanelJudge(stances, self.texts, rules)

    def _rubric_judge(self, respondent: Respondent, texts: ValueTexts | None = None) -> RubricJudge:
        return RubricJudge(self._grader(respondent), texts or self.texts, self.settings.aggregate)

    def _grader(self, respondent: Respondent) -> Grader:
        settings = self.settings
        grader: Grader = SampledGrader(respondent, settings)
        if settings.scorer == "expected":
            grader = ExpectedGrader(respondent, settings)
        return PersistentGrader(grader, Again(settings.failed_again, settings.unparsed_again))

    def _respondent(self, name: str) -> Respondent:
        settings = self.settings
        digits = list(map(str, settings.grades)) if settings.scorer == "expected" else None
        if name == SELF or (name == FROZEN and self.holds_initial):
            initial = name == FROZEN
            return EngineRespondent(
                name, self.engine, self.contexts, self.context_limit, digits, initial=initial
            )
        if name not in self.askers:
            raise UserError(missing_askers(settings, self.askers))
        return AskerRespondent(name, self.askers[name], digits or ())
