"""A hub of data sets on a real socket: as much of the hub's API as `datasets.load_dataset` needs to read.

`python -m tests.worlds.dataset_hub TASK…` says the items of tasks as the product loads them, a line of JSON
each: the items, or the mistake.
"""

import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from dynalign.configs.errors import UserError
from dynalign.evaluation.suites.sources import rows_of
from dynalign.evaluation.suites.tasks import TASKS

COMMIT = "c" * 40
_FILE = re.compile(r"/datasets/(?P<repo>[^/]+/[^/]+)/resolve/[^/]+/(?P<path>.+)")
_ABOUT = re.compile(r"/api/datasets/(?P<repo>[^/]+/[^/]+)(/(?P<what>revision|tree|paths-info)/[^/]+)?(/.*)?")

Files = Mapping[str, bytes]


class DatasetHub:
    """sets: name → path → content. gated: names that only somebody with a token may read."""

    def __init__(self, sets: Mapping[str, Files], gated: frozenset[str]) -> None:
        self.sets = sets
        self.gated = gated
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.http.daemon_threads = True

    @property
    def address(self) -> str:
        """The hub's endpoint, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, path: str, body: bytes) -> tuple[str, bytes]:
        """An error code of the hub, or "" and the content. body: of a POST."""
        file = _FILE.fullmatch(path)
        about = _ABOUT.fullmatch(path)
        found = file or about
        if found is None or found["repo"] not in self.sets:
            return "RepoNotFound", b""
        if found["repo"] in self.gated:
            return "GatedRepo", b""
        files = self.sets[found["repo"]]
        if file is not None:
            return ("", files[file["path"]]) if file["path"] in files else ("EntryNotFound", b"")
        assert about is not None
        entries = [_entry(name, content) for name, content in files.items()]
        if about["what"] == "tree":
            return "", json.dumps(entries).encode()
        if about["what"] == "paths-info":
            wanted = _paths(body)
            return "", json.dumps([entry for entry in entries if entry["path"] in wanted]).encode()
        siblings = [{"rfilename": name} for name in files]
        return "", json.dumps({"id": found["repo"], "sha": COMMIT, "siblings": siblings}).encode()


def _entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": f"{len(content):040x}"}


def _paths(body: bytes) -> list[str]:
    if body.startswith(b"{"):
        return list(json.loads(body)["paths"])
    return parse_qs(body.decode())["paths"]


def _handler_of(hub: DatasetHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def _answer(self, body: bytes) -> None:
            error, content = hub.answer(unquote(urlsplit(self.path).path), body)
            self.send_response({"": 200, "GatedRepo": 403}.get(error, 404))
            if error:
                self.send_header("X-Error-Code", error)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{len(content):040x}"')
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    return Handler


@contextmanager
def dataset_hub(sets: Mapping[str, Files], gated: frozenset[str] = frozenset()) -> Iterator[DatasetHub]:
    """A hub that runs."""
    hub = DatasetHub(sets, gated)
    threading.Thread(target=hub.http.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.http.shutdown()
        hub.http.server_close()


def main(names: list[str]) -> None:
    for name in names:
        try:
            said: object = rows_of(TASKS[name], None)
        except UserError as error:
            said = [str(mistake) for mistake in error.mistakes]
        sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
