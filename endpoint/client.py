"""Requests to an OpenAI-compatible endpoint. One try each: `pacing.py` decides about the next.

`openai` brings the connection, headers and errors; its retries are off. Bodies are read here, because a
server may put anything into a response with status 200, and `openai` lets HTML, `choices: []` and missing
fields pass.
"""

import asyncio
import email.utils
import json
import math
import time
from collections.abc import Mapping
from typing import Literal

import httpx2
import openai

from dynalign.endpoint.base import Answers, Question
from dynalign.endpoint.outcome import FailedCall
from dynalign.endpoint.scrub import scrubbed
from dynalign.endpoint.wire import Capabilities, answers_from, request_body

CONNECT_S = 10.0
"""Longest wait for a connection, in seconds."""
BUSY = (429, 503, 529)
"""Status of an endpoint that has not begun with the request, because it is busy or not there yet."""
MAY_PASS = (408, 409)
"""Further ones, besides all from 500, after which the same request may be answered."""
NOT_BILLED = (409, *BUSY)
SECRET = (401, 403)
"""Status whose text is not shown: it may quote the key, whole or in parts."""
NEVER_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
"""Failures before the endpoint had the request."""


class EndpointClient:
    """A `Sender` to one address. Used from one event loop."""

    def __init__(
        self, address: str, key: str | None = None, capabilities: Capabilities | None = None
    ) -> None:
        """address: the base URL, which usually ends with `/v1`. key: None where the endpoint wants none."""
        self.address = address.rstrip("/")
        self.capabilities = capabilities or Capabilities()
        self._key = key
        self._choice_ids: dict[tuple[str, ...], tuple[int, ...] | None] = {}
        self._options: openai.RequestOptions = {} if key else {"headers": {"Authorization": openai.omit}}
        self._openai = openai.AsyncOpenAI(
            base_url=self.address,
            api_key=key or "none",
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=CONNECT_S),  # `send` bounds the whole
        )

    async def send(self, question: Question, timeout_s: float) -> Answers | FailedCall:
        """The outcome of one request, at most `timeout_s` seconds later."""
        try:
            async with asyncio.timeout(timeout_s):
                choice_ids = await self._token_of_each(question)
                if isinstance(choice_ids, FailedCall):
                    return choice_ids
                body = request_body(question, self.capabilities, choice_ids)
                text = await self._request("/chat/completions", body, question)
        except TimeoutError:
            cause = f"no answer within {timeout_s:.4g} s"
            return FailedCall(cause, again="some times", billed=True, slow_down=True)
        return text if isinstance(text, FailedCall) else answers_from(text, question)

    async def models(self, timeout_s: float) -> Mapping[str, str] | FailedCall:
        """Who owns each model that the endpoint serves, by the model's name (`vllm` for vLLM's own server);
        empty where the endpoint does not list them."""
        try:
            async with asyncio.timeout(timeout_s):
                text = await self._request("/models", None, None)
        except TimeoutError:
            return FailedCall(f"no answer within {timeout_s:.4g} s", again="some times", billed=False)
        if isinstance(text, FailedCall):
            return {} if text.status in (404, 405) else text
        listed = _object(text).get("data")
        entries = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        return {str(each.get("id")): str(each.get("owned_by")) for each in entries}

    async def close(self) -> None:
        """Ends all connections."""
        await self._openai.close()

    async def _token_of_each(self, question: Question) -> tuple[int, ...] | FailedCall | None:
        """The token of each choice, from vLLM's tokenizer; None for another server, or where a choice is not
        one token."""
        choices = question.choices
        if not choices or not self.capabilities.vllm or not self.capabilities.logprobs:
            return None
        if choices not in self._choice_ids:
            found: list[int] = []
            for choice in choices:
                body = {"model": question.model, "prompt": choice, "add_special_tokens": False}
                text = await self._request(f"{self.address.removesuffix('/v1')}/tokenize", body, question)
                if isinstance(text, FailedCall) and text.again != "never":
                    return text
                tokens = None if isinstance(text, FailedCall) else _object(text).get("tokens")
                if isinstance(tokens, list) and len(tokens) == 1 and isinstance(tokens[0], int):
                    found.append(tokens[0])
            self._choice_ids[choices] = tuple(found) if len(set(found)) == len(choices) else None
        return self._choice_ids[choices]

    async def _request(
        self, path: str, body: Mapping[str, object] | None, question: Question | None
    ) -> str | FailedCall:
        """The text of a response with status 200. body: None for GET."""
        try:
            if body is None:
                return await self._openai.get(path, cast_to=str, options=self._options)
            return await self._openai.post(path, body=body, cast_to=str, options=self._options)
        except openai.APIStatusError as error:
            return self._refused(error, question)
        except openai.APIConnectionError as error:
            cause = error.__cause__
            if isinstance(cause, NEVER_SENT):
                said = f"no connection ({type(cause).__name__})"
                return FailedCall(said, again="until the deadline", billed=False)
            said = f"the connection ended before the answer was there ({type(cause).__name__})"
            return FailedCall(said, again="some times", billed=True)

    def _refused(self, error: openai.APIStatusError, question: Question | None) -> FailedCall:
        status = error.status_code
        asked = [] if question is None else [each.content for each in question.messages]
        hidden = [self._key or "", *asked, *([question.prefill] if question else [])]
        words = "" if status in SECRET else scrubbed(_words(error.body), hidden)
        again: Literal["never", "some times", "until the deadline"] = "never"
        if status in BUSY and error.code != "insufficient_quota":
            again = "until the deadline"
        elif status in MAY_PASS or status >= 500:
            again = "some times"
        return FailedCall(
            f"status {status}" + (f": {words}" if words else ""),
            again,
            billed=again != "never" and status not in NOT_BILLED,
            slow_down=status in BUSY,
            retry_after_s=_retry_after_s(error.response.headers, time.time()),
            status=status,
        )


def _words(body: object) -> str:
    """What a server says about an error, in whatever form."""
    message = body.get("message") if isinstance(body, dict) else body
    if message is None:
        message = json.dumps(body)
    text = message if isinstance(message, str) else json.dumps(message)
    return "" if text.lstrip().startswith("<") else text


def _object(text: str) -> dict[str, object]:
    """The JSON object in a response; empty for anything else."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After` (RFC 9110: seconds or a date); None if neither
    can be read."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            wait_s = float(value) * unit_s
        except ValueError:
            date = email.utils.parsedate_tz(value)
            if date is None:
                continue
            wait_s = email.utils.mktime_tz(date) - now_s
        if math.isfinite(wait_s):
            return max(0.0, wait_s)
    return None
