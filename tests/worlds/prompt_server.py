"""The four agents behind a server: answers of `prompt_agents` on a real socket, counted and billed.

Simulated: the model. Real: the command, the client, the journal, the files.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from dynalign.endpoint.base import Answer, Message, Question
from tests.worlds.prompt_agents import Said
from tests.worlds.scripted_endpoint import Act, Exchange


def schema_of(body: dict[str, Any]) -> str | None:
    """The schema of a request of the agents; None for one of the preflight."""
    form = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    agents = {"goal", "prompt", "deductions"} & set(form.get("properties", {}))
    return json.dumps(form) if agents else None


def of_agents(bodies: list[dict[str, Any]]) -> list[str]:
    """The requests of agents, each as one text."""
    return [json.dumps(body, sort_keys=True) for body in bodies if schema_of(body) is not None]


def agents_act(says: Callable[[Question], Said], pause_s: float = 0.0) -> Act:
    """The act of a server on which the agents' model runs."""

    def act(exchange: Exchange) -> None:
        body = exchange.body
        schema = schema_of(body)
        content = '{"answer": "yes"}'
        reason = "stop"
        if schema is not None:
            time.sleep(pause_s)
            message = Message("user", body["messages"][-1]["content"])
            said = says(Question(body["model"], (message,), seed=body.get("seed"), json_schema=schema))
            assert isinstance(said, str | Answer)
            content = said if isinstance(said, str) else said.text
            reason = "stop" if isinstance(said, str) else said.finish_reason
        finish = {"refused": "content_filter"}.get(reason, reason)
        choice = {"index": 0, "finish_reason": finish, "message": {"content": content}}
        exchange.answer(choices=[choice])

    return act
