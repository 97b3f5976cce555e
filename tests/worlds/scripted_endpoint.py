"""A small OpenAI-compatible server on a real socket, that does what a script says, counts and bills.

Simulated: the model. An answer is `answer N`, where N counts all answers, or what the script gives it.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tiny"
KEY = "sk-live-0123456789abcdefghij"

Body = dict[str, Any]
Act = Callable[["Exchange"], None]
"""What the server does with one request."""


class Exchange:
    """One request, and the ways to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: Body, server: "ScriptedEndpoint") -> None:
        self.body = body
        self.server = server
        self._handler = handler

    def respond(self, status: int, text: str, **headers: str) -> None:
        """A whole response."""
        content = text.encode()
        self._head(status, len(content), headers)
        self._handler.wfile.write(content)

    def error(self, status: int, message: str, **headers: str) -> None:
        """An error in OpenAI's form."""
        self.respond(status, json.dumps({"error": {"message": message, "code": None}}), **headers)

    def answer(self, **changes: Any) -> None:
        """Bills, then answers. changes: fields of the response."""
        self.respond(200, json.dumps(self.server.billed_response(self.body) | changes))

    def die(self, after_bytes: int) -> None:
        """Bills, sends a part of the answer, and ends the connection."""
        content = json.dumps(self.server.billed_response(self.body)).encode()
        self._head(200, len(content), {})
        self._handler.wfile.write(content[:after_bytes])
        self._handler.close_connection = True

    def drip(self, pause_s: float) -> None:
        """Bills, and sends a byte at a time."""
        content = json.dumps(self.server.billed_response(self.body)).encode()
        self._head(200, len(content), {})
        for byte in content:
            self._handler.wfile.write(bytes([byte]))
            self._handler.wfile.flush()
            time.sleep(pause_s)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self._handler.send_response(status)
        self._handler.send_header("Content-Length", str(length))
        self._handler.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()


def answering(exchange: Exchange) -> None:
    """The act of a server that works."""
    exchange.answer()


def judging(exchange: Exchange) -> None:
    """The act of a server that can do everything, and grades a text by the sum of its bytes."""
    body = exchange.body
    asked = body["messages"][-1]["content"]
    grade = sum(asked.encode()) % 6
    choice: Body = {"finish_reason": "stop", "index": 0}
    text = f"seed {body.get('seed')}"
    if "response_format" in body:
        fields = body["response_format"]["json_schema"]["schema"]["properties"]
        text = '{"answer": "yes"}'
        if "score" in fields:
            text = json.dumps({"rationale": "because", "score": grade})
        if "order" in fields:
            text = json.dumps({"rationale": "because", "order": [*range(1, fields["order"]["maxItems"] + 1)]})
    if "logprobs" in body:
        top = [{"token": str(each), "logprob": -0.1 if each == grade else -4.0} for each in range(6)]
        choice["logprobs"] = {"content": [top[grade] | {"top_logprobs": top}]}
    n = int(body.get("n", 1))
    exchange.answer(choices=[choice | {"index": each, "message": {"content": text}} for each in range(n)])


class ScriptedEndpoint:
    """Acts by `script`, one act a request, then by `act`."""

    def __init__(self, act: Act = answering, key: str | None = None, owned_by: str = "somebody") -> None:
        self.act = act
        self.script: list[Act] = []
        self.key = key
        self.owned_by = owned_by
        self.asked: list[Body] = []
        """The body of every request that was understood."""
        self.billed: list[Body] = []
        """The body of every request that was answered, wholly or in part."""
        self.billed_tokens = 0
        self.keys_seen: list[str | None] = []
        """The Authorization header of every request."""
        self.most_at_once = 0
        self._at_once = 0
        self._answers = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._http.daemon_threads = True

    @property
    def address(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def billed_response(self, body: Body) -> Body:
        """An answer, which is on the bill from here on."""
        n = int(body.get("n", 1))
        with self._lock:
            first = self._answers
            self._answers += n
            prompt_tokens = sum(len(message["content"].split()) for message in body["messages"])
            self.billed.append(body)
            self.billed_tokens += prompt_tokens + 2 * n
        choices = [
            {"index": each, "finish_reason": "stop", "message": {"content": f"answer {first + each}"}}
            for each in range(n)
        ]
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 2 * n}
        return {"model": body["model"], "choices": choices, "usage": usage}

    def chat(self, exchange: Exchange) -> None:
        """One request for answers."""
        with self._lock:
            self.asked.append(exchange.body)
            act = self.script.pop(0) if self.script else self.act
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            act(exchange)
        finally:
            with self._lock:
                self._at_once -= 1

    def start(self) -> None:
        """Answers from now on, in threads."""
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Takes no more connections."""
        self._http.shutdown()
        self._http.server_close()


def _handler_of(server: ScriptedEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            models = {"data": [{"id": MODEL, "owned_by": server.owned_by}]}
            self._answered(Exchange(self, {}, server), lambda each: each.respond(200, json.dumps(models)))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answered(Exchange(self, body, server), server.chat)

        def _answered(self, exchange: Exchange, act: Act) -> None:
            server.keys_seen.append(self.headers["Authorization"])
            if server.key is not None and self.headers["Authorization"] != f"Bearer {server.key}":
                exchange.error(401, f"Incorrect API key provided: {self.headers['Authorization']}")
            elif exchange.body and exchange.body["model"] != MODEL:
                exchange.error(404, f"The model `{exchange.body['model']}` does not exist.")
            else:
                act(exchange)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: tests read what was asked."""

    return Handler


@contextmanager
def scripted_endpoint(
    *script: Act, act: Act = answering, key: str | None = None, owned_by: str = "somebody"
) -> Iterator[ScriptedEndpoint]:
    """A server that runs. script: its first acts; act: all further ones."""
    server = ScriptedEndpoint(act, key, owned_by)
    server.script += script
    server.start()
    try:
        yield server
    finally:
        server.stop()
