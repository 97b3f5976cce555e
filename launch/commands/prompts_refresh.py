"""`dynalign prompts refresh`: new prompts where the groups of a run still separate, for prompts whose groups
do not any more.

    the run's record ─► choice ─► shown ─► decision on disk ─► set (`prompts make`) ─► file and request
                                                                                        │
    the run takes it at the end of a step, or when it goes on (actors/ledger/prompt_intake.py) ◄─┘

Run again, the command goes on with what it has decided.
"""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from dynalign.configs.errors import Mistake, RunFailed, UserError, one_line
from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.dataset.items import Cell
from dynalign.dataset.making_plan import MakingPlan
from dynalign.dataset.refresh_choice import LEAST_PROMPTS, RefreshChoice, choose, useful_cells
from dynalign.dataset.set_folder import STATE as SET_STATE
from dynalign.launch.commands.prompts_make import MakingCommand, Narrowed, made, prepared
from dynalign.launch.refresh_decision import RefreshDecision, newest_decision, write_decision
from dynalign.launch.refresh_record import RunRecord, read_record
from dynalign.launch.refresh_words import told_choice, told_cost
from dynalign.launch.resume.open_run import find_run
from dynalign.rollout import added_prompts
from dynalign.rollout.added_prompts import AddedPrompts
from dynalign.rollout.prompts import Prompt, load_prompts
from dynalign.run_folder import layout, owner, requests

LengthOf = Callable[[RunSettings], Callable[[str], int]]
"""The settings of a run → the tokens of a prompt's context."""


@dataclass(frozen=True)
class Refreshing:
    """What the command works with: `Refreshing("quickstart", folder, settings, record, count=None)`."""

    run: str
    """The run, as the user named it."""
    folder: Path
    """Its folder."""
    settings: RunSettings
    """Its settings."""
    record: RunRecord
    """What it has recorded."""
    count: int | None
    """Prompts wanted; None: as many as are saturated."""


def prompts_refresh(
    run: str,
    runs: str,
    count: int | None,
    overrides: Sequence[str],
    local: str | None,
    say: Callable[[str], None] = click.echo,
    length_of: LengthOf | None = None,
) -> int:
    """Makes prompts for a run and hands them to it.

    overrides, local: as of `prompts make`, over the settings with which the prompts of the run were made.
    length_of: None: by the tokenizer of the run's model. Returns as `prompts_make` does. Raises UserError
    before anything is asked.
    """
    if count is not None and count < 1:
        raise UserError(
            [Mistake("--count", count, "must be at least 1", "leave it out to replace what is dull")]
        )
    folder = find_run(run, runs)
    settings = load_run(str(folder / layout.CONFIG)).settings
    record = read_record(folder, settings)
    work = Refreshing(run, folder, settings, record, count)
    _refuse_waiting(work)
    begun = _unfinished(work)
    choice: RefreshChoice | None = None
    if begun is None:
        choice = _choice(work)
        for line in told_choice(run, record, choice):
            say(line)
        number = max(layout.refresh_numbers(folder), default=0) + 1
        wanted = count or len(choice.saturated)
        dropped = choice.saturated
    else:
        say(f"run {run} goes on with its refresh {begun.number}")
        number = begun.number
        wanted = begun.count
        dropped = begun.dropped
    length = (length_of or _by_tokenizer)(settings)

    def cells_of(plan: MakingPlan) -> Sequence[Cell]:
        return begun.cells if begun is not None else _useful(work, choice, plan)

    command = _making(work, number, wanted, cells_of, overrides, local)
    for line in told_cost(command.plan):
        say(line)
    decision = begun or RefreshDecision(number, wanted, command.plan.cells, dropped, record.after)
    write_decision(folder, decision)
    code = made(command, say)
    if code == 0:
        say(_handed_over(work, decision, command, length, say))
    return code


def _refuse_waiting(work: Refreshing) -> None:
    if requests.waiting_prompts(work.folder) is not None:
        rule = "has not taken the prompts of the refresh before yet"
        remedy = "it does at the end of a step, or when it goes on; remove prompts.request to withdraw them"
        raise UserError([Mistake("run", work.run, rule, remedy)])


def _unfinished(work: Refreshing) -> RefreshDecision | None:
    """A refresh that was begun and is not handed over. Raises UserError for another count."""
    decision = newest_decision(work.folder)
    if decision is None or decision.handed or decision.after != work.record.after:
        return None
    if work.count not in (None, decision.count):
        rule = f"would change refresh {decision.number}, which was begun with {decision.count} prompts"
        file = layout.refresh_decision(work.folder, decision.number)
        raise UserError([Mistake("--count", work.count, rule, f"leave it out, or remove {file}")])
    return decision


def _choice(work: Refreshing) -> RefreshChoice:
    """Raises UserError where the record is too short, or says that there is nothing to do."""
    record = work.record
    run = work.run
    if not record.outcomes:
        raise _refused(run, "has trained no step yet", "wait for its first steps")
    choice = choose(record.cells, record.outcomes)
    saturated = tuple(position for position in choice.saturated if position not in record.dropped)
    if choice.prompts < LEAST_PROMPTS:
        rule = f"has groups of {choice.prompts} prompts since step {choice.first_step}, too few to choose by"
        raise _refused(
            run, rule, f"wait for groups of {LEAST_PROMPTS} prompts in the newer half of its steps"
        )
    if choice.usefulness <= 0.0:
        rule = "has no group that separates any more, so nothing says which prompts would"
        raise _refused(run, rule, f"look at its rewards: dynalign report {run}")
    if not saturated and work.count is None:
        rule = "has no saturated prompt: there is nothing to refresh"
        raise _refused(run, rule, "train on, or ask for more prompts in useful cells with --count N")
    return replace(choice, saturated=saturated)


def _refused(run: str, rule: str, remedy: str) -> UserError:
    return UserError([Mistake("run", run, rule, remedy)])


def _useful(work: Refreshing, choice: RefreshChoice | None, plan: MakingPlan) -> Sequence[Cell]:
    """As many useful cells as the plan has. Raises UserError if the taxonomy has too few."""
    assert choice is not None
    wanted = len(plan.cells)
    cells = useful_cells(choice, plan.taxonomy, wanted, plan.settings.seed)
    if len(cells) < wanted:
        rule = (
            f"has {len(cells)} cells that are expected to separate as well as those of the run, not {wanted}"
        )
        raise UserError([Mistake("taxonomy", None, rule, "give another taxonomy=FILE, or a smaller --count")])
    return cells


def _making(
    work: Refreshing,
    number: int,
    count: int,
    cells_of: Callable[[MakingPlan], Sequence[Cell]],
    overrides: Sequence[str],
    local: str | None,
) -> MakingCommand:
    """The set, prepared: by the settings of the set that the run trains on, where it is a made one."""
    prompts = work.record.prompts
    earlier = {
        "the prompts of the run": [prompt.prompt for prompt in prompts.train],
        "its held-out prompts": [prompt.prompt for prompt in prompts.heldout],
    }
    words = ["dynalign", "prompts", "refresh", work.run, "--runs", str(work.folder.parent), *overrides]
    again = shlex.join([*words, *(["--local", local] if local else [])])
    given = [
        *_made_with(work.settings, number, local),
        *overrides,
        f"count={count}",
        "heldout_share=0",
        "steered=true",
    ]
    out = str(layout.refresh_folder(work.folder, number))
    return prepared(None, given, out, local, Narrowed(cells_of, earlier, again))


def _made_with(settings: RunSettings, number: int, local: str | None) -> list[str]:
    """The settings of the set that the run trains on, each as `key=value`, with a seed of its own. For other
    prompts, the value of the run alone."""
    state = Path(settings.prompts.source) / SET_STATE
    known: dict[str, object] = {"judge": {"values": settings.judge.values}}
    if state.is_file():
        try:
            known = dict(json.loads(state.read_bytes())["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            rule = f"cannot be read ({one_line(error)})"
            raise UserError([Mistake(str(state), None, rule, "mend it, or remove it")]) from None
    if local is not None:
        known.pop("endpoint", None)
    seed = known.get("seed")
    known["seed"] = number + (seed if isinstance(seed, int) else 0)
    return [f"{key}={json.dumps(value)}" for key, value in known.items() if value is not None]


def _handed_over(
    work: Refreshing,
    decision: RefreshDecision,
    command: MakingCommand,
    length: Callable[[str], int],
    say: Callable[[str], None],
) -> str:
    """Hands the set to the run; says when the run takes it. Raises RunFailed if no prompt of it fits."""
    name = command.folder.path.name
    limit = work.settings.prompts.max_tokens
    rows = load_prompts(str(command.folder.path)).train if command.folder.path.exists() else ()
    fitting = [prompt for prompt in rows if length(prompt.prompt) <= limit]
    if not fitting:
        raise RunFailed(f"no prompt of {command.folder.path} fits into prompts.max_tokens={limit}")
    if long := len(rows) - len(fitting):
        say(f"{long:,} prompts are longer than prompts.max_tokens={limit}, and are left out")
    prompts = tuple(Prompt(f"{name}-{each.id}", each.prompt, each.domain, "train") for each in fitting)
    origin = f"{layout.REFRESHES}/{name}"
    added = AddedPrompts(work.record.base_hash, decision.after, origin, prompts, decision.dropped)
    content_hash = added_prompts.write(work.folder, added)
    requests.leave_prompts(work.folder, content_hash)
    write_decision(work.folder, decision.given(content_hash))
    driven = owner.is_driven(work.folder, time.time())
    when = "at the end of the step under way" if driven else "when it goes on"
    counts = f"{len(prompts):,} prompts in the place of {len(decision.dropped):,}"
    return f"run {work.run} takes {counts} {when} ({content_hash})"


def _by_tokenizer(settings: RunSettings) -> Callable[[str], int]:
    """Raises UserError if the model's tokenizer cannot be read."""
    from dynalign.launch.models.folder import model_folder
    from dynalign.launch.preflight import run_contexts, run_texts

    contexts = run_contexts(settings, Path(model_folder(settings.model)), run_texts(settings))
    return lambda text: len(contexts.sampling_context(text))
