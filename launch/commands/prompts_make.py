"""`dynalign prompts make`: a set of prompts that writes itself, from settings to files.

    refuse what can be refused ─► the folder, held ─► endpoints or engines ─► `make_set` ─► files ─► card

Every answer is in the folder's journal before it is used. So the command is run again to go on.
"""

import asyncio
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

import click

from dynalign.configs.errors import Mistake, RunFailed, UserError
from dynalign.configs.load_settings import load_settings
from dynalign.configs.prompt_making_rules import prompt_making_mistakes
from dynalign.configs.sections.prompt_making import PromptMakingSettings
from dynalign.dataset.agent_texts import Agent
from dynalign.dataset.board import Board, FateCounts
from dynalign.dataset.items import Cell
from dynalign.dataset.making import AgentModel, MakingEnd, make_set
from dynalign.dataset.making_plan import MakingPlan, make_plan
from dynalign.dataset.measures.set_filter import make_filter
from dynalign.dataset.set_folder import (
    PLACE,
    Identity,
    SetFolder,
    held,
    identity,
    refuse_other_set,
    short_hash,
    write_state,
)
from dynalign.dataset.set_writer import figures, write_set
from dynalign.launch.interrupts import cancel_of_this_task, on_signal, run_async
from dynalign.launch.making_view import MakingView
from dynalign.launch.offline_askers import OpenAskers, open_askers
from dynalign.launch.output_folder import output_folder
from dynalign.launch.prompt_models import AgentEndpoints, agent_endpoints, refuse_small_budgets
from dynalign.launch.set_report.card import write_card
from dynalign.launch.set_report.evaluation_sets import present_sets
from dynalign.rollout.prompts import load_prompts

INTERRUPTED = 130
OTHERWISE = "docs/prompts.md lists every setting"

Texts = Mapping[str, Sequence[str]]
"""Name of a set → its texts."""


@dataclass(frozen=True)
class MakingCommand:
    """All that the command starts from.

    Example: `MakingCommand(folder, plan, asked, identity, earlier, evaluation, "dynalign prompts make …")`.
    """

    folder: SetFolder
    """Where the set goes."""
    plan: MakingPlan
    """What it is made from."""
    asked: AgentEndpoints
    """Who writes it."""
    made_from: Identity
    """What may not change when it goes on."""
    earlier: Texts
    """Sets that it must not repeat."""
    evaluation: Texts
    """Evaluation sets that it must not repeat or hold a part of."""
    again: str
    """The command line."""


@dataclass(frozen=True)
class Narrowed:
    """A set for a purpose.

    Example: `Narrowed(useful, {"the prompts of the run": ["…"]}, "dynalign prompts refresh quickstart")`.
    """

    cells_of: Callable[[MakingPlan], Sequence[Cell]]
    """The cells of its goals, as many as the plan has, in the place of those."""
    earlier: Texts
    """Further texts that it must not repeat."""
    again: str
    """The command line that goes on with it."""


def prompts_make(
    config: str | None,
    overrides: Sequence[str],
    out: str,
    local: str | None,
    say: Callable[[str], None] = click.echo,
) -> int:
    """Makes a set, or goes on with one.

    config: a YAML file, or None. out: the folder. local: a model for engines of our own. Returns 0 for a set
    that is finished, an empty one too, 1 for one that a further run of the command would go on with, 130
    after Ctrl-C. Raises UserError with every mistake, before anything is asked."""
    return made(prepared(config, overrides, out, local), say)


def made(command: MakingCommand, say: Callable[[str], None]) -> int:
    """Makes the set of a command that is prepared, or goes on with it. Returns as `prompts_make` does."""
    with ExitStack() as stack:
        stack.enter_context(held(command.folder))
        goes_on = refuse_other_set(command.folder, command.made_from)
        board, end, line = run_async(_made(command, goes_on))
        complete = not end.reason and not board.has_unfinished
        try:
            heldout = write_set(command.folder, board.ordered(), board.in_set(), command.plan.settings)
            write_figures(command, board.counts(), heldout, end, complete)
            card = write_card(command.folder.path)
        except OSError as error:
            raise RunFailed(f"{command.folder.path} cannot be written: {error.strerror or error}") from error
    for told in (
        *told_counts(command, board.counts(), heldout),
        line,
        *card,
        *told_end(command, end, complete, board.counts().accepted),
    ):
        say(told)
    return INTERRUPTED if end.reason == "interrupted" else int(not complete)


def prepared(
    config: str | None,
    overrides: Sequence[str],
    out: str,
    local: str | None,
    narrowed: Narrowed | None = None,
) -> MakingCommand:
    """All that can be known without asking anybody. narrowed: where only some cells are wanted. Raises
    UserError with every mistake."""
    changed = [*overrides, *([] if local is None else [f"pool.model={local}"])]
    mistakes: list[Mistake] = []
    folder = None
    try:
        folder = SetFolder(output_folder(PLACE, out))
        refuse_other_set(folder, None)
    except UserError as error:
        mistakes += error.mistakes
    try:
        loaded = load_settings(PromptMakingSettings, config, changed, OTHERWISE, prompt_making_mistakes)
    except UserError as error:
        raise UserError([*mistakes, *error.mistakes]) from None
    settings = loaded.settings
    try:
        asked = agent_endpoints(settings)
    except UserError as error:
        raise UserError([*mistakes, *error.mistakes]) from None
    try:
        plan = make_plan(settings, asked.model_of)
        if narrowed is not None:
            plan = replace(plan, cells=tuple(narrowed.cells_of(plan)))
        refuse_small_budgets(asked, plan)
        earlier: Texts = {source: _texts(source) for source in settings.earlier}
    except UserError as error:
        raise UserError([*mistakes, *error.mistakes]) from None
    if mistakes or folder is None:
        raise UserError(mistakes)
    evaluation = present_sets()
    words = ["dynalign", "prompts", "make", *([config] if config else []), *overrides, "--out", out]
    again = shlex.join([*words, *(["--local", local] if local else [])])
    if narrowed is None:
        made_from = identity(plan, asked.address_of, {**earlier, **evaluation})
    else:
        earlier = {**earlier, **narrowed.earlier}
        made_from = {
            **identity(plan, asked.address_of, {**earlier, **evaluation}),
            "cells": short_hash([asdict(cell) for cell in plan.cells]),
        }
        again = narrowed.again
    refuse_other_set(folder, made_from)
    return MakingCommand(folder, plan, asked, made_from, earlier, evaluation, again)


def _texts(source: str) -> list[str]:
    prompts = load_prompts(source)
    return [prompt.prompt for prompt in (*prompts.train, *prompts.heldout)]


def _nothing() -> FateCounts:
    return FateCounts(0, 0, {}, {}, {}, 0)


async def _made(command: MakingCommand, goes_on: bool) -> tuple[Board, MakingEnd, str]:
    """The board with every item, why it ended, and what it has cost."""
    plan = command.plan
    set_filter = make_filter(command.earlier, command.evaluation, plan.settings.similarity)
    board = Board(plan, set_filter)
    asked = command.asked
    opening = open_askers(
        asked.endpoints, command.folder.answers, "prompts", asked.local, place="prompts make"
    )
    async with opening as opened:
        if not goes_on:  # only now: a folder whose endpoint was refused belongs to no set yet
            write_figures(command, _nothing(), 0, MakingEnd(), False)
        view = MakingView(board, {name: each.account for name, each in opened.endpoints.items()})
        at_once = min(plan.settings.count, 2 * asked.concurrency)
        stop = asyncio.Event()
        cancel = cancel_of_this_task()

        def interrupted() -> None:
            stop.set()
            on_signal(cancel)  # a second Ctrl-C ends it at once

        on_signal(interrupted)
        try:
            end = await make_set(board, agent_models(asked, opened), at_once, stop, view.moved)
        finally:
            view.end()
            on_signal(cancel)
        return board, end, opened.line()


def agent_models(asked: AgentEndpoints, opened: OpenAskers) -> dict[Agent, AgentModel]:
    """Whom each agent asks; its questions are accounted under its name."""
    return {
        agent: AgentModel(opened.endpoints[name].asker(f"prompts: {agent}"), opened.endpoints[name].model)
        for agent, name in asked.name_of.items()
    }


def write_figures(
    command: MakingCommand, counts: FateCounts, heldout: int, end: MakingEnd, complete: bool
) -> None:
    """set.json."""
    known = figures(counts, command.plan.settings, heldout, end.reason, complete)
    write_state(command.folder, command.made_from, known)


def told_counts(command: MakingCommand, counts: FateCounts, heldout: int) -> list[str]:
    """The law in numbers, and where the set is."""
    rejected = sum(counts.rejected.values())
    failed = sum(counts.failed.values())
    lines = [
        f"asked {counts.asked:,} = accepted {counts.accepted:,} + rejected {rejected:,} + failed {failed:,}"
    ]
    for name, reasons in (("rejected", counts.rejected), ("failed", counts.failed)):
        listed = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
        if listed:
            lines.append(f"{name}: " + ", ".join(f"{number:,} {reason}" for reason, number in listed))
    wanted = command.plan.settings.count
    share = f"{counts.accepted:,} of {wanted:,} prompts, {heldout:,} of them held out"
    lines.append(f"{share}: {command.folder.path}")
    return lines


def told_end(command: MakingCommand, end: MakingEnd, complete: bool, accepted: int) -> list[str]:
    """What to do next."""
    if complete and not accepted:
        why = f"{command.folder.path / 'items.jsonl'} says of each item why"
        return [f"no item was accepted, so there is nothing to train on; {why}; let another model write"]
    if complete:
        return [f"train on it: prompts.source={command.folder.path}"]
    why = end.detail or "some questions were not answered"
    return [f"it is not finished: {why}", f"this goes on, and pays for nothing twice: {command.again}"]
