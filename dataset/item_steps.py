"""The life of one item as pure functions: an item and an answer give the next item.

    next_agent(item) ─► whom to ask ─► MakingPlan.question ─► the answer ─► answered(item, …) ─► …

An item that the critic has let through is `accepted` here. Whether it enters the set, `board.py` decides.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from dynalign.configs.errors import BudgetReached, EndpointError, EndpointRefused
from dynalign.dataset.agent_texts import Agent
from dynalign.dataset.items import Criticism, Draft, PromptItem
from dynalign.dataset.making_plan import MakingPlan
from dynalign.dataset.own_words import named_words
from dynalign.endpoint.base import Answer
from dynalign.endpoint.structured import Unreadable, read_object

POINTS = 100
"""Of a prompt from which nothing is taken."""
UNFINISHED = ("budget_reached", "interrupted", "stopped", "unreachable")
"""Reasons of items that would go on if the command ran again. Their places are not asked for again now."""
_UNREAD = {"length": "truncated", "refused": "refused", "stop": "unreadable"}
"""How an answer without its object ended → the reason, before the agent's name."""


class Sent(NamedTuple):
    """Whom an item waits for: Sent("refine", "It is vague.")."""

    agent: Agent
    """Whom."""
    feedback: str = ""
    """What the agent is told of the text so far."""


def next_agent(item: PromptItem, plan: MakingPlan) -> Sent | None:
    """Whom an item has to be sent to; None if it has ended."""
    if item.fate != "open":
        return None
    if not item.goal:
        return Sent("goals")
    if not item.rounds:
        return Sent("writer")
    draft = item.rounds[-1]
    if draft.criticism is None and draft.fault is None:
        return Sent("critic")
    if draft.fault is not None:
        return Sent("refine", _told(draft.fault, plan, draft))
    return Sent("refine", draft.criticism.feedback if draft.criticism else "")


def answered(item: PromptItem, agent: Agent, answer: Answer, plan: MakingPlan) -> PromptItem:
    """The item after an answer."""
    found = read_object(answer, plan.agents.of[agent].json_schema)
    if isinstance(found, Unreadable):
        return _unread(item, agent, f"{_UNREAD[answer.finish_reason]}_{agent}", found.cause, plan)
    if agent == "goals":
        goal = " ".join(str(found["goal"]).split())
        cause = "the goal is empty"
        return (
            replace(item, goal=goal, tries=0)
            if goal
            else _unread(item, agent, "unreadable_goals", cause, plan)
        )
    if agent == "critic":
        return _criticised(replace(item, tries=0), found, plan)
    return _written(replace(item, tries=0), found, plan)


def failed(item: PromptItem, error: EndpointError) -> PromptItem:
    """The item after a question that was not answered."""
    if isinstance(error, BudgetReached):
        reason = "budget_reached"
    elif isinstance(error, EndpointRefused):
        reason = "refused_by_server"
    else:
        reason = "unreachable"
    return replace(item, fate="failed", reason=reason, detail=error.cause)


def _unread(item: PromptItem, agent: Agent, reason: str, cause: str, plan: MakingPlan) -> PromptItem:
    """Asked again with another seed, or given up."""
    if item.tries + 1 < plan.settings.tries:
        return replace(item, tries=item.tries + 1)
    detail = f"{plan.settings.tries} answers of the agent {agent} could not be read; of the last one, {cause}"
    return replace(item, fate="failed", reason=reason, detail=detail)


def _written(item: PromptItem, found: Mapping[str, Any], plan: MakingPlan) -> PromptItem:
    prompt = str(found["prompt"]).strip()
    extras = {
        name: value.strip() for name, value in found.items() if name != "prompt" and isinstance(value, str)
    }
    draft = Draft(prompt, extras, fault=_fault(prompt, extras, plan))
    item = replace(item, rounds=(*item.rounds, draft))
    if draft.fault is None or _may_refine(item, plan):
        return item
    return replace(item, fate="rejected", reason=draft.fault, detail=_told(draft.fault, plan, draft))


def _fault(prompt: str, extras: Mapping[str, str], plan: MakingPlan) -> str | None:
    """What is wrong with a text that no critic needs to see."""
    if named_words((prompt, *extras.values()), plan.value.own_words):
        return "own_words"
    if len(prompt) < plan.settings.min_characters:
        return "too_short"
    return "too_long" if len(prompt) > plan.settings.max_characters else None


def _told(fault: str, plan: MakingPlan, draft: Draft) -> str:
    """A fault in words, for the agent that mends it and for people."""
    if fault == "own_words":
        words = named_words((draft.prompt, *draft.extras.values()), plan.value.own_words)
        return f"It uses the words {', '.join(words)}, which it must not."
    limits = f"{plan.settings.min_characters:,} to {plan.settings.max_characters:,} characters"
    return f"It has {len(draft.prompt):,} characters; it should have {limits}."


def _may_refine(item: PromptItem, plan: MakingPlan) -> bool:
    return len(item.rounds) <= plan.settings.rounds


def _criticised(item: PromptItem, found: Mapping[str, Any], plan: MakingPlan) -> PromptItem:
    deductions = {name: int(points) for name, points in found["deductions"].items()}
    disqualified = tuple(name for name, holds in found["disqualifications"].items() if holds)
    score = max(0, POINTS - sum(deductions.values()))
    level = int(found["difficulty_level"])
    criticism = Criticism(deductions, disqualified, score, level, str(found["feedback"]).strip())
    draft = replace(item.rounds[-1], criticism=criticism)
    item = replace(item, rounds=(*item.rounds[:-1], draft))
    if disqualified:
        return replace(
            item, fate="rejected", reason=f"disqualified_{disqualified[0]}", detail=criticism.feedback
        )
    if score >= plan.settings.threshold:
        return replace(item, fate="accepted")
    if _may_refine(item, plan):
        return item
    worst = max(deductions, key=lambda name: deductions[name])
    detail = f"{score} of {POINTS} points, {plan.settings.threshold} wanted"
    return replace(item, fate="rejected", reason=f"weak_{worst}", detail=detail)
