"""The capability probe before a run: its items, whether the engines can be asked them, and what it costs."""

import logging
from importlib.util import find_spec
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.capability import LEAST_ITEMS, SHARE
from dynalign.evaluation.suites.probe import DrawnItems, ProbeItems, drawn_items
from dynalign.launch.plan.plan import PlacementPlan
from dynalign.rollout.contexts import Contexts
from dynalign.run_folder.capability import BEFORE_TRAINING

logger = logging.getLogger(__name__)


def probe_of(settings: RunSettings) -> DrawnItems | None:
    """The items of the run's probe; None without one. Takes milliseconds.

    Raises UserError for items that are missing, and where the harness that grades them is not installed."""
    if settings.capability.items and find_spec("lm_eval") is None:
        rule = "needs lm-evaluation-harness, which is not installed"
        remedy = "pip install 'dynalign[evaluate]', or set capability.items=0"
        raise UserError([Mistake("capability.items", settings.capability.items, rule, remedy)])
    return drawn_items(settings.capability)


def examined_probe(plan: PlacementPlan, contexts: Contexts, folder: Path, step: int) -> DrawnItems | None:
    """The same, examined with the tokenizer, which takes seconds: the harness reads every item.

    step: from which the run goes on. Raises UserError also for questions that the engines do not hold, and
    for a run that goes on without the initial policy's answers."""
    settings = plan.settings
    drawn = probe_of(settings)
    if drawn is None:
        return None
    items = drawn.open()
    asked = [
        len(contexts.chat_context(question.messages, "" if question.choices else None))
        for question in items.questions
    ]
    most = [tokens + question.max_tokens for tokens, question in zip(asked, items.questions, strict=True)]
    mistakes = [
        *_too_long(settings, max(most), plan.context_tokens),
        *_without_initial(settings, items, folder, step),
    ]
    if mistakes:
        raise UserError(mistakes)
    logger.info(cost_line(plan, len(most), sum(most)))
    return drawn


def cost_line(plan: PlacementPlan, items: int, most_tokens: int) -> str:
    """What the probe costs, before it is paid. most_tokens: of all questions with answers of full length."""
    every = plan.settings.capability.every_steps
    if plan.settings.placement.mode == "shared":
        return (
            f"capability probe: {items} items, at most {most_tokens:,} tokens; training waits for them "
            f"before step 1 and every {every} steps, since engines and learner take turns"
        )
    budget = SHARE * plan.completion_tokens_per_step
    answers = min(items, int(budget * every / (most_tokens / items)))
    return (
        f"capability probe: {items} items, at most {most_tokens:,} tokens; training waits for them once, "
        f"before step 1; then they take {SHARE:.0%} of a step's completion tokens, at most {budget:,.0f}: "
        f"a point of {every} steps has about {answers} answers, if all texts have their full length"
    )


def _too_long(settings: RunSettings, longest: int, limit: int) -> list[Mistake]:
    if longest <= limit or settings.rollout.engine != "vllm":
        return []
    rule = f"its longest item has {longest:,} tokens with its answer, and the engines hold {limit:,}"
    remedy = "set capability.max_tokens or capability.thinking_tokens lower, or prompts.max_tokens higher"
    return [Mistake("capability.max_tokens", settings.capability.max_tokens, rule, remedy)]


def _without_initial(settings: RunSettings, items: ProbeItems, folder: Path, step: int) -> list[Mistake]:
    """A point can be compared only with the initial policy's, which a run that has trained has no more."""
    if step == BEFORE_TRAINING:
        return []
    from dynalign.run_folder.metrics import read_capability  # loads TensorBoard, which is slow

    known = {item.item for item in read_capability(folder).get(BEFORE_TRAINING, ())}
    if len(known & set(items.names)) >= LEAST_ITEMS:
        return []
    rule = f"the run goes on from step {step}, and its initial policy was not asked these items"
    remedy = "set the section capability as it was at the run's start, or capability.items=0"
    return [Mistake("capability.items", settings.capability.items, rule, remedy)]
