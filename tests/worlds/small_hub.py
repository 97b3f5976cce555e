"""A small model hub on a real socket: as much of its API as an upload needs. It keeps what was committed."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_a_token_of_a_test"


class SmallHub:
    """What it was asked and has: `hub.files` is path → content of the newest commit."""

    def __init__(self) -> None:
        self.created: list[dict[str, object]] = []
        self.files: dict[str, bytes] = {}
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.http.daemon_threads = True

    @property
    def address(self) -> str:
        """The hub's endpoint."""
        return f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, path: str, body: bytes) -> dict[str, object]:
        """The response to a POST."""
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return {"url": f"{self.address}/me/aligned"}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return {"files": [{"path": each["path"], **modes} for each in files]}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return {"commitUrl": f"{self.address}/me/aligned/commit/{'a' * 40}", "commitOid": "a" * 40}
        return {"errors": [], "warnings": []}  # of /api/validate-yaml


def _handler_of(hub: SmallHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
            found = hub.answer(self.path, body) if allowed else {"error": "Invalid username or password."}
            content = json.dumps(found).encode()
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: tests read what was asked."""

    return Handler


@contextmanager
def small_hub() -> Iterator[SmallHub]:
    """A hub that runs."""
    hub = SmallHub()
    threading.Thread(target=hub.http.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.http.shutdown()
        hub.http.server_close()
