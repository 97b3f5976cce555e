"""The endpoints of a run's judges before it starts: what each has to do, asked once, one line per mistake.

settings ─► what each is used for ─► a few small questions, and one as long as the longest ─► what it can do
"""

import asyncio
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dynalign.configs.errors import EndpointError, EndpointRefused, Mistake, UserError
from dynalign.configs.schema import RunSettings
from dynalign.endpoint.ask import Endpoint
from dynalign.endpoint.client import EndpointClient
from dynalign.endpoint.opening import EndpointUse, open_answers, open_endpoints
from dynalign.endpoint.preflight import PURPOSE, Need, budget_mistakes, setting_mistakes
from dynalign.endpoint.wire import Capabilities
from dynalign.rollout.judges.trial import asks_for_grades, trial_question
from dynalign.rollout.judges.value_texts import ValueTexts
from dynalign.run_folder import layout

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExaminedEndpoints:
    """What was found. Example: `ExaminedEndpoints({"big": use}, ("judge.endpoints.big: …",))`."""

    uses: Mapping[str, EndpointUse]
    """Name → its settings, with what it was found to do."""
    told: tuple[str, ...]
    """What each was asked and what it answered, a line each."""


def endpoint_uses(run: RunSettings) -> dict[str, EndpointUse]:
    """Name → what the judges of this run need of it."""
    needs: list[Need] = ["seeds"]
    if run.judge.scorer == "expected":
        needs.append("logprobs")
    if run.judge.scorer == "sampled" or run.judge.kind == "ranked":
        needs.append("json_schema")
    return {
        name: EndpointUse(f"judge.endpoints.{name}", settings, tuple(needs))
        for name, settings in run.judge.endpoints.items()
    }


def examined(
    run: RunSettings,
    texts: ValueTexts,
    answers: Path,
    account: Path,
    environment: Mapping[str, str] = os.environ,
) -> ExaminedEndpoints:
    """Asks all of them. answers: the journal of what is asked now. account: the journal of the run, where it
    is another one: what was spent before.

    Raises UserError with every mistake: what can be known from the settings first, before anybody is asked;
    then no server, a wrong key, an unknown model, no log-probabilities, a context that is too short."""
    uses = endpoint_uses(run)
    mistakes: list[Mistake] = []
    for use in uses.values():
        question = trial_question(run, texts, use.settings.model)
        mistakes += setting_mistakes(use.place, use.settings, environment)
        mistakes += budget_mistakes(use.place, use.settings, question, account)
    if mistakes:
        raise UserError(mistakes)
    return asyncio.run(_examined(run, texts, uses, answers, environment))


def asked_for_run(run: RunSettings, folder: Path, texts: ValueTexts) -> ExaminedEndpoints:
    """The same before a run. Bills and answers are the run's, and are kept in its folder."""
    journal = folder / layout.ANSWERS
    folder.mkdir(mode=layout.PRIVATE, parents=True, exist_ok=True)
    found = examined(run, texts, journal, journal)
    for line in found.told:
        logger.info(line)
    return found


def asked_aside(run: RunSettings, folder: Path, texts: ValueTexts) -> ExaminedEndpoints:
    """The same for a command that starts no run: it writes nothing to the run folder."""
    with tempfile.TemporaryDirectory() as aside:
        return examined(run, texts, Path(aside) / layout.ANSWERS, folder / layout.ANSWERS)


async def _examined(
    run: RunSettings,
    texts: ValueTexts,
    uses: Mapping[str, EndpointUse],
    answers: Path,
    environment: Mapping[str, str],
) -> ExaminedEndpoints:
    async with open_answers(answers) as file, open_endpoints(uses, file, environment) as endpoints:
        jobs = (_tried(run, texts, uses[name], endpoint) for name, endpoint in endpoints.items())
        found = dict(zip(endpoints, await asyncio.gather(*jobs), strict=True))
    if mistakes := [each for each in found.values() if isinstance(each, Mistake)]:
        raise UserError(mistakes)
    told = tuple(each for each in found.values() if isinstance(each, str))
    known = {name: replace(use, capabilities=_capabilities(endpoints[name])) for name, use in uses.items()}
    return ExaminedEndpoints(known, told)


async def _tried(run: RunSettings, texts: ValueTexts, use: EndpointUse, endpoint: Endpoint) -> str | Mistake:
    """The longest question: what came of it, in words, or the mistake."""
    question = trial_question(run, texts, use.settings.model)
    words = sum(len(message.content.split()) for message in question.messages)
    try:
        answers = await endpoint.asker(PURPOSE).ask(question)
    except EndpointError as error:
        rule = f"does not answer the longest question of this run, about {words:,} words ({error.cause})"
        longer = (
            "serve it with a longer context, or lower prompts.max_tokens or rollout.max_completion_tokens"
        )
        remedy = longer if isinstance(error, EndpointRefused) else "see that it answers, or ask another"
        return Mistake(use.place, None, rule, remedy)
    if asks_for_grades(run) and answers.answers_N[0].choice_logprobs is None:
        rule = "reports no log-probabilities of the grades"
        return Mistake(use.place, None, rule, "set judge.scorer=sampled, or ask another server")
    total = endpoint.account.total()
    asked = f"{total.requests} questions, the longest of about {words:,} words"
    return f"{use.place}: {answers.model} at {endpoint.address} was asked {asked}; {_can(use, endpoint)}"


def _can(use: EndpointUse, endpoint: Endpoint) -> str:
    """What a server does and does not, of what is needed."""
    can = _capabilities(endpoint)
    has: dict[Need, tuple[bool, str]] = {
        "logprobs": (can.logprobs, "log-probabilities"),
        "json_schema": (can.json_schema, "JSON schemas"),
        "seeds": (can.seeds, "seeds"),
    }
    words = [f"{'has' if has[need][0] else 'has no'} {has[need][1]}" for need in sorted(use.needs)]
    tokens = endpoint.account.total()
    return f"{', '.join(words)} ({tokens.prompt_tokens + tokens.completion_tokens:,} tokens)"


def _capabilities(endpoint: Endpoint) -> Capabilities:
    assert isinstance(endpoint.sender, EndpointClient)
    return endpoint.sender.capabilities
