"""What a judge is: the `Judge` protocol, and the tokens that judging needs.

respondents.py  who is asked: a rollout engine, an endpoint or a pool
expected.py     one constrained token; score = Σ k·q(k) over the grades
sampled.py      a short rationale and an integer in a JSON answer; the mean of `samples` of them
rubric_judge.py each candidate by itself, by each rubric
committee.py    several of these, settled by a rule
panel.py        stances that score, read each other's reasons and score again
ranked.py       one call that puts the group in order
function.py     a Python callable (verifiable rewards)
persistent.py   what failed is asked again
rederived.py    from the records to the scores again
make.py         the judges that the settings name
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.judge import FROZEN, SELF, JudgeSettings
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.judges.messages import TOKENS_PER_NUMBER, Said, ranked_message, stance_message
from dynalign.rollout.judges.value_texts import ValueTexts, judge_user_message
from dynalign.rollout.records import Verdict
from dynalign.rollout.weights.version import travelling_adapter
from dynalign.run_folder.run_status import JudgeCost


class Judge(Protocol):
    """Scores all candidates of one prompt."""

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        """One verdict per candidate text, in their order.

        seed: of whatever the judge samples; equal calls give equal requests. fresh: compute every context
        anew instead of reading cached key-values, so that a second score shows the numerical noise of the
        first.

        An answer that cannot be read is a verdict `unparsed`, and a call that fails is a verdict
        `unreachable`, never an error. Raises EngineError when a rollout engine fails."""
        ...


class RunJudge(Judge, Protocol):
    """A judge, and what a run has to know about it."""

    name: str
    """Who scores, for the record."""
    asks_policy: bool
    """Whether the live policy is asked: no weights may be swapped meanwhile, and the score is of its
    version."""
    compares: bool
    """Whether a score depends on the other candidates, so that only a whole group can be scored again."""

    def costs(self) -> Mapping[str, JudgeCost]:
        """Who was asked, by name → what that has cost since the start."""
        ...


def answer_tokens(settings: JudgeSettings) -> int:
    """Tokens that the judge's own answer may take."""
    expected = settings.scorer == "expected" and settings.kind != "ranked"
    return 1 if expected else settings.max_rationale_tokens


def asks_engine(run: RunSettings) -> bool:
    """Whether the rollout engines are asked for verdicts: as the live policy, or without its adapter as the
    initial one."""
    asked = run.judge.asked
    return SELF in asked or (FROZEN in asked and travelling_adapter(run) is not None)


def context_tokens(contexts: Contexts, texts: ValueTexts, run: RunSettings) -> int:
    """The longest context in tokens, answer included, that an engine of this run has to hold.

    A candidate's text is encoded anew for the judge and can take more tokens than were sampled: twice as
    many are allowed for.
    """
    sampled = run.prompts.max_tokens + run.rollout.max_completion_tokens
    return judge_tokens(contexts, texts, run) if asks_engine(run) else sampled


def judge_tokens(contexts: Contexts, texts: ValueTexts, run: RunSettings) -> int:
    """The same for whoever is asked for verdicts, such as a pool: the longest question and its answer.

    contexts: of the model that is asked. Reasons are encoded anew like candidates; so is the prompt, where
    another model's tokenizer measured it."""
    judge = run.judge
    candidates = run.rollout.group_size if judge.kind == "ranked" else 1
    messages = [judge_user_message(texts, name, "", "") for name in texts.rubrics]
    messages += [judge_user_message(texts, name, "", "") for name in texts.probe_rubrics]
    if texts.ranked_template:
        messages.append(ranked_message(texts, "", [""] * candidates))
    said = [Said(stance, judge.highest_grade, "") for stance in texts.stances]
    messages += [stance_message(texts, stance, "", "", said[0], said[1:]) for stance in texts.stances]
    frame = max(len(contexts.judge_context(message, texts.judge_prefill)) for message in messages)
    reasons = 2 * len(said) * judge.max_rationale_tokens
    tokenizers = 2 if set(judge.asked) - {SELF, FROZEN} else 1
    data = tokenizers * run.prompts.max_tokens + 2 * candidates * run.rollout.max_completion_tokens
    numbers = TOKENS_PER_NUMBER * candidates if judge.kind == "ranked" else 0
    return frame + reasons + data + numbers + answer_tokens(judge)
