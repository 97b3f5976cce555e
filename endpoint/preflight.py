"""Whether an endpoint can do what a run needs, found out before the run starts: one line per mistake."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from dynalign.configs.errors import BudgetReached, Mistake, UserError
from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.endpoint.ask import Endpoint
from dynalign.endpoint.base import Answers, Message, Question
from dynalign.endpoint.budget import account_of, most, spent_in, wall_of
from dynalign.endpoint.client import EndpointClient
from dynalign.endpoint.outcome import FailedCall
from dynalign.endpoint.structured import Unreadable, read_object
from dynalign.endpoint.wire import Capabilities

Need = Literal["logprobs", "json_schema", "seeds"]
"""What a use of an endpoint may need besides answers."""

PURPOSE = "preflight"
PAUSES_S = (1.0, 4.0)
"""Before the second and third try of one question, in seconds."""
LONGEST_PAUSE_S = 30.0
"""The most that an endpoint's Retry-After is obeyed here, in seconds."""
SHOWN_MODELS = 10
UNKNOWN = "name a model that the server knows, or end the address with /v1"
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
"""Capital letters only: `hf_…` and `sk_…` are keys that somebody has put in the place of a name."""
DIGITS = ("0", "1", "2", "3", "4", "5")
YES = (
    '{"type": "object", "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}}, '
    '"required": ["answer"], "additionalProperties": false}'
)


def setting_mistakes(place: str, settings: EndpointSettings, environment: Mapping[str, str]) -> list[Mistake]:
    """What can be known without asking. place: the dotted path of the endpoint's settings.

    No mistake shows what may be a key or a password."""
    found = []
    if not _is_address(settings.address):
        remedy = "write it like http://host:8000/v1"
        shown = None if "@" in settings.address else settings.address
        found.append(
            Mistake(f"{place}.address", shown, "must be a URL that begins with http:// or https://", remedy)
        )
    elif re.search(r"[@?#\s]", settings.address):
        rule = "must hold neither a password nor a query"
        found.append(Mistake(f"{place}.address", None, rule, "put the key into key_variable's variable"))
    variable = settings.key_variable
    if variable is not None and not VARIABLE.fullmatch(variable):
        rule = "must be the name of an environment variable, not a key"
        found.append(
            Mistake(f"{place}.key_variable", None, rule, "write a name like JUDGE_KEY, and export it")
        )
    elif variable is not None:
        found += _key_mistakes(f"{place}.key_variable", variable, environment.get(variable, "").strip())
    if settings.budget_money is not None and not (settings.input_price or settings.output_price):
        rule = "needs prices: without them nothing costs money"
        remedy = f"set {place}.input_price and {place}.output_price"
        found.append(Mistake(f"{place}.budget_money", settings.budget_money, rule, remedy))
    return found


def budget_mistakes(place: str, settings: EndpointSettings, question: Question, file: Path) -> list[Mistake]:
    """The mistake of a budget in which there is no room for a question. question: the longest one. file: the
    journal, which may not be there yet."""
    wall = wall_of(settings)
    before = spent_in(file, account_of(settings))
    needed = most(question, wall)
    found = []
    if wall.tokens is not None and before.tokens + needed.tokens > wall.tokens:
        rule = f"{before.tokens:,} are spent, and the longest question can cost {needed.tokens:,}"
        remedy = f"set it to {before.tokens + needed.tokens} or more"
        found.append(Mistake(f"{place}.budget_tokens", wall.tokens, rule, remedy))
    if wall.money is not None and before.cost + needed.cost > wall.money:
        rule = f"{before.cost:.6g} is spent, and the longest question can cost {needed.cost:.6g}"
        remedy = f"set it to {before.cost + needed.cost:.6g} or more"
        found.append(Mistake(f"{place}.budget_money", wall.money, rule, remedy))
    return found


def _is_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or a bracket that is none
        return False


def _key_mistakes(place: str, variable: str, key: str) -> list[Mistake]:
    if not key:
        return [Mistake(place, variable, "is not set in the environment", f"export {variable}=<key>")]
    if not (key.isascii() and key.isprintable()) or " " in key:
        rule = "holds a character that no HTTP header can carry"
        return [Mistake(place, variable, rule, f"export {variable} with the key alone")]
    return []


async def preflight(
    place: str,
    endpoint: Endpoint,
    client: EndpointClient,
    needs: Collection[Need] = (),
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Capabilities:
    """Asks a few small questions; gives the client the capabilities that it finds, and returns them.

    place: the dotted path of the endpoint's settings. client: the endpoint's sender. A server without JSON
    schemas or seeds is no mistake: schemas are then asked for in words. Raises UserError if the endpoint is
    not there, does not take the key, does not know the model, or has no log-probabilities where they are
    needed."""
    examination = _Examination(place, endpoint, client, sleep)
    await examination.find_model()
    await examination.find_limit_name()
    if "logprobs" in needs:
        await examination.find_logprobs()
    if "json_schema" in needs:
        await examination.find_json_schema()
    if "seeds" in needs:
        await examination.find_seeds()
    return client.capabilities


class _Examination:
    def __init__(
        self,
        place: str,
        endpoint: Endpoint,
        client: EndpointClient,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._place = place
        self._endpoint = endpoint
        self._client = client
        self._sleep = sleep
        self._served: Mapping[str, str] = {}

    async def find_model(self) -> None:
        found = await self._client.models(self._endpoint.pace.request_s)
        if isinstance(found, FailedCall):
            raise UserError([self._mistake(found)])
        self._served = found
        if found and self._endpoint.model not in found:
            raise UserError([self._unknown_model()])
        self._now(vllm=found.get(self._endpoint.model) == "vllm")

    async def find_limit_name(self) -> None:
        outcome = await self._try("Say yes.")
        if isinstance(outcome, FailedCall) and "max_completion_tokens" in outcome.cause:
            self._now(limit_name="max_completion_tokens")
            outcome = await self._try("Say yes.")
        if isinstance(outcome, FailedCall):
            raise UserError([self._mistake(outcome)])

    async def find_logprobs(self) -> None:
        outcome = await self._try("Name a digit from 0 to 5.", max_tokens=1, choices=DIGITS)
        if isinstance(outcome, Answers) and outcome.answers_N[0].choice_logprobs is not None:
            return
        self._now(logprobs=False)
        rule = "has no log-probabilities, which the scorer `expected` needs"
        remedy = "use the scorer `sampled`, or another server"
        raise UserError([Mistake(self._place, self._endpoint.address, rule, remedy)])

    async def find_json_schema(self) -> None:
        outcome = await self._try('Answer yes, as {"answer": "yes"}.', max_tokens=64, json_schema=YES)
        is_read = isinstance(outcome, Answers) and not isinstance(
            read_object(outcome.answers_N[0], YES), Unreadable
        )
        self._now(json_schema=is_read)

    async def find_seeds(self) -> None:
        text = "Write a short sentence about the sea."
        outcomes = [await self._try(text, seed=17) for _ in range(2)]
        texts = [each.answers_N[0].text for each in outcomes if isinstance(each, Answers)]
        self._now(seeds=len(texts) == 2 and texts[0] == texts[1])

    def _now(self, **known: object) -> None:
        self._client.capabilities = replace(self._client.capabilities, **known)  # type: ignore[arg-type]

    async def _try(
        self,
        text: str,
        max_tokens: int = 16,
        choices: tuple[str, ...] = (),
        json_schema: str | None = None,
        seed: int | None = None,
    ) -> Answers | FailedCall:
        """The outcome of a small question, after up to three tries."""
        question = Question(
            self._endpoint.model,
            (Message("user", text),),
            max_tokens=max_tokens,
            choices=choices,
            json_schema=json_schema,
            seed=seed,
        )
        for pause_s in (*PAUSES_S, None):
            try:
                outcome = await self._endpoint.try_once(question, self._endpoint.pace.request_s, PURPOSE)
            except BudgetReached as error:
                remedy = f"it is {self._place}.budget_tokens or {self._place}.budget_money"
                raise UserError([Mistake(self._place, None, error.cause, remedy)]) from None
            if isinstance(outcome, Answers) or outcome.again == "never" or pause_s is None:
                break
            await self._sleep(min(LONGEST_PAUSE_S, outcome.retry_after_s or pause_s))
        return outcome

    def _mistake(self, failed: FailedCall) -> Mistake:
        address = self._endpoint.address
        if failed.status in (401, 403):
            rule = f"is refused ({failed.cause})"
            remedy = f"export the right key for {address} in the variable that it names"
            return Mistake(f"{self._place}.key_variable", self._endpoint.key_variable, rule, remedy)
        if failed.status == 404 and self._endpoint.model not in self._served:
            return self._unknown_model(failed.cause)
        if failed.status is None:
            remedy = "start the server, or correct host and port"
            return Mistake(f"{self._place}.address", address, f"does not answer ({failed.cause})", remedy)
        remedy = "correct the address, or see the server's log"
        return Mistake(f"{self._place}.address", address, f"answers no question ({failed.cause})", remedy)

    def _unknown_model(self, cause: str = "") -> Mistake:
        names = [*self._served][:SHOWN_MODELS]
        more = f" and {len(self._served) - len(names)} more" if len(self._served) > len(names) else ""
        remedy = f"it serves {', '.join(names)}{more}" if names else UNKNOWN
        rule = f"is unknown at {self._endpoint.address}" + (f" ({cause})" if cause else "")
        return Mistake(f"{self._place}.model", self._endpoint.model, rule, remedy)
