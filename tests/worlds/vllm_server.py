"""vLLM's own OpenAI-compatible server, as somebody else would run it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

KEY = "sk-of-this-test-only"
START_S = 600.0


class VllmServer:
    """A process group of its own, on one port, started again under the same address."""

    def __init__(self, model: Path, log: Path, longest_tokens: int = 128) -> None:
        """longest_tokens: of a prompt and its answer together."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/v1"
        self._model = model
        self._log = log
        self._longest_tokens = longest_tokens
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | {"VLLM_API_KEY": KEY, "VLLM_CPU_KVCACHE_SPACE": "1"}
        options = {"--model": self._model, "--served-model-name": "tiny", "--port": self.port}
        options |= {
            "--dtype": "float32",
            "--max-model-len": self._longest_tokens,
            "--max-num-seqs": 8,
            "--host": "127.0.0.1",
        }
        options |= {"--max-num-batched-tokens": 2 * self._longest_tokens}
        arguments = [str(part) for option in options.items() for part in option]
        flags = ["--enforce-eager", "--no-enable-chunked-prefill"]
        module = "vllm.entrypoints.openai.api_server"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments, *flags],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        until_s = time.monotonic() + START_S
        while not self._is_up():
            assert time.monotonic() < until_s, self._log.read_text()[-4000:]
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()[-4000:]
            time.sleep(0.5)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False
