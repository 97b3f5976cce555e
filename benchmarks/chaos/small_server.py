"""A small OpenAI-compatible server for the endpoint of a storm's run, in a thread of the storm's own process:
it outlives everything that is struck.

Simulated: the model. Each text gets the same grade every time, by the sum of its bytes.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "small"
GRADES = 6


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """The response to one request for chat completions: a digit, with the log-probability of each."""
    asked = str(body["messages"][-1]["content"])
    grade = sum(asked.encode()) % GRADES
    top = [{"token": str(each), "logprob": -0.1 if each == grade else -4.0} for each in range(GRADES)]
    choice = {
        "finish_reason": "stop",
        "message": {"content": str(grade)},
        "logprobs": {"content": [top[grade] | {"top_logprobs": top}]},
    }
    usage = {"prompt_tokens": len(asked.split()), "completion_tokens": 1}
    return {"model": MODEL, "choices": [choice] * int(body.get("n", 1)), "usage": usage}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The models that are served."""
        self._respond({"data": [{"id": MODEL, "owned_by": "storm"}]})

    def do_POST(self) -> None:
        """An answer."""
        self._respond(answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the storm's account is on the terminal."""

    def _respond(self, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def small_server() -> Iterator[str]:
    """Serves; the base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
