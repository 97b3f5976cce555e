"""The inference engine: vLLM's `AsyncLLM` behind `rollout.engine.Engine`, with weight updates from a file in shared memory.

Processes: this one (client, asyncio) and one EngineCore child that owns the model. The child is no Ray worker, so the last hop
of a weight version is a path: the child maps the file and loads it through vLLM's weight-transfer API, which also stamps the
version on every token sampled afterwards.

    generate       waits while the door is shut ─► add_request under the salt of the version loaded ─► outputs
    load_weights   shut the door, wait for requests on its threshold ─► pause(keep) ─► start_weight_update
                   ─► update_weights(path) ─► finish(label) ─► resume, open the door
                   sequences in flight keep their key-values and go on under the new weights; what comes later has a new salt
                   and never meets a key-value of older weights

An update that fails after its first write leaves a mixture of weights: the engine is marked dead and never resumed.
"""

import asyncio
import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read when vLLM is imported. 0: EngineCore runs its worker in-process (two processes per engine instead of three).
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

import numpy as np
import torch
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferInitRequest,
    WeightTransferUpdateInfo,
    WeightTransferUpdateRequest,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from configs.errors import DeadlineExceeded, EngineError
from configs.schema import RolloutSettings
from rollout.engine import EngineRequest, EngineResult
from rollout.records import VersionSpan
from rollout.weight_version import Manifest, label_step

_PR_SET_PDEATHSIG = 1  # Linux prctl option: deliver a signal when the parent dies
_REQUEST_DEADLINE_S = 1800.0  # longest single request; a silent engine must not hold a lease for ever


@dataclass
class _FileInitInfo(WeightTransferInitInfo):
    """The file backend needs no rendezvous."""


@dataclass
class _FileUpdateInfo(WeightTransferUpdateInfo):
    path: str
    manifest: bytes


class FileWeightTransfer(WeightTransferEngine[_FileInitInfo, _FileUpdateInfo]):
    """vLLM weight-transfer backend that reads a whole version from one file (in shared memory). Lives in EngineCore."""

    init_info_cls = _FileInitInfo
    update_info_cls = _FileUpdateInfo

    def __init__(self, config: Any, vllm_config: Any, device: torch.device, model: torch.nn.Module) -> None:
        super().__init__(config, vllm_config, device, model)
        # Outside Ray an EngineCore outlives a killed parent and keeps the device.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def init_transfer_engine(self, init_info: _FileInitInfo) -> None:
        """Nothing to connect."""

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # The base class ends with an accelerator synchronize, which a CPU does not have.
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: _FileUpdateInfo) -> None:
        manifest = Manifest.unpack(update_info.manifest)
        mapped = np.memmap(update_info.path, dtype=np.uint8, mode="c")  # copy-on-write: torch wants writable memory
        whole = torch.from_numpy(mapped)

        def tensors() -> Any:
            for entry in manifest.tensors:
                start = manifest.file_offset_bytes(entry)
                flat = whole[start : start + entry.size_bytes]
                yield entry.name, flat.view(_torch_dtype(entry.dtype)).view(entry.shape)

        model: Any = self.model
        model.load_weights(tensors())

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)  # type: ignore[no-untyped-call]
        if self.device.type == "cpu" and self.model_config.hf_text_config.tie_word_embeddings:
            # On a CPU the head keeps its own packed copy of the tied embedding, which layerwise reload does not refresh.
            head: Any = self.model.lm_head
            head.quant_method.process_weights_after_loading(head)

    def shutdown(self) -> None:
        """Nothing to release."""


class WorkerExtension:
    """Importing this module in the EngineCore process is what registers the file backend there."""


WeightTransferEngineFactory.register_engine("file", FileWeightTransfer)


class VllmEngine:
    """One vLLM engine. Build it with `start` on the event loop that will use it."""

    def __init__(self, llm: AsyncLLM, label: str) -> None:
        self._running: AsyncLLM | None = llm
        self._label = label
        self._dead: str | None = None
        self._requests = 0
        self._door = asyncio.Condition()
        self._open = True
        self._on_threshold = 0

    @staticmethod
    async def start(model: str, settings: RolloutSettings, max_model_len: int, label: str, seed: int = 0) -> "VllmEngine":
        """Loads `model` (a folder or hub id) as version `label`; contexts and completions together hold `max_model_len` tokens."""
        arguments = AsyncEngineArgs(
            model=model,
            dtype=settings.dtype,
            seed=seed,
            max_model_len=max_model_len,
            max_num_seqs=settings.max_sequences,
            block_size=settings.block_size,
            kv_cache_memory_bytes=int(settings.kv_cache_gib * 2**30),
            enforce_eager=settings.eager,
            enable_prefix_caching=True,
            worker_extension_cls="rollout.vllm_engine.WorkerExtension",
            weight_transfer_config=WeightTransferConfig(backend="file"),
            enable_sleep_mode=torch.cuda.is_available(),
            disable_log_stats=True,
        )
        engine = VllmEngine(AsyncLLM.from_engine_args(arguments), label)
        await engine._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info={}))
        await engine._llm.update_weight_version(label)
        return engine

    async def generate(self, request: EngineRequest) -> EngineResult:
        """Raises EngineError when the engine is dead or refuses the request, DeadlineExceeded when it stays silent."""
        try:
            async with asyncio.timeout(_REQUEST_DEADLINE_S):
                queue = await self._submit(request)
                try:
                    # FINAL_ONLY: the first output is the whole answer.
                    output = await queue.get()
                except asyncio.CancelledError:
                    await self._llm.abort(queue.request_id, internal=True)
                    raise
        except TimeoutError as error:
            raise DeadlineExceeded("the engine's answer to one request", _REQUEST_DEADLINE_S) from error
        except EngineDeadError as error:
            raise self._died(f"EngineCore died: {error}") from error
        except (EngineGenerateError, ValueError) as error:
            raise EngineError(f"vLLM refused a request of {len(request.token_ids)} tokens: {error}") from error
        return _result(request, output)

    async def _submit(self, request: EngineRequest) -> Any:
        async with self._door:
            await self._door.wait_for(lambda: self._open)
            self._on_threshold += 1
        try:
            self._requests += 1
            prompt = {"prompt_token_ids": list(request.token_ids), "cache_salt": self._label}
            return await self._llm.add_request(str(self._requests), prompt, _sampling_params(request))  # type: ignore[arg-type]
        finally:
            async with self._door:
                self._on_threshold -= 1
                self._door.notify_all()

    async def load_weights(self, label: str, manifest: bytes, file: Path) -> float:
        """See `Engine.load_weights`. Whatever ends it early, a cancellation too, leaves the engine dead."""
        llm = self._llm
        async with self._door:
            self._open = False
            await self._door.wait_for(lambda: self._on_threshold == 0)
        started = time.monotonic()
        try:
            await llm.pause_generation(mode="keep", clear_cache=False)
            await llm.start_weight_update()
            await llm.update_weights(WeightTransferUpdateRequest(update_info={"path": str(file), "manifest": manifest}))
            await llm.finish_weight_update(weight_version=label)
            await llm.resume_generation()
            self._label = label
        finally:
            if self._label != label:
                self._end(f"loading version {label} failed half-way")
            async with self._door:
                self._open = True
                self._door.notify_all()
        return time.monotonic() - started

    async def sleep(self) -> None:
        if torch.cuda.is_available():
            await self._llm.sleep(level=1)  # keeps the weights in host memory: what wakes up is whole, whatever is loaded next

    async def wake(self) -> None:
        if torch.cuda.is_available():
            await self._llm.wake_up()

    async def close(self) -> None:
        self._end("closed")

    @property
    def _llm(self) -> AsyncLLM:
        if self._running is None:
            raise EngineError(f"the engine is not usable: {self._dead}")
        return self._running

    def _died(self, cause: str) -> EngineError:
        self._end(cause)
        return EngineError(cause)

    def _end(self, cause: str) -> None:
        # Dropping the reference here keeps vLLM's finalizer from running while the interpreter is being taken down.
        running, self._running, self._dead = self._running, None, self._dead or cause
        if running is not None:
            running.shutdown()


def _torch_dtype(name: str) -> torch.dtype:
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def _sampling_params(request: EngineRequest) -> SamplingParams:
    common: dict[str, Any] = {"output_kind": RequestOutputKind.FINAL_ONLY, "detokenize": False}
    if request.fresh:
        common["skip_reading_prefix_cache"] = True
    if request.prefill_from is not None:
        return SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, **common)
    if request.digit_ids is not None:
        digits = list(request.digit_ids)
        # allowed_token_ids leaves the reported log-probabilities raw (a grammar would renormalize them over the digits).
        return SamplingParams(temperature=0.0, max_tokens=1, allowed_token_ids=digits, logprob_token_ids=digits, **common)
    schema = None if request.json_schema is None else StructuredOutputsParams(json=request.json_schema)
    sampled: dict[str, Any] = {"max_tokens": request.max_tokens, "seed": request.seed, "logprobs": 0, "structured_outputs": schema}
    return SamplingParams(temperature=1.0, **sampled, **common)


def _result(request: EngineRequest, output: RequestOutput) -> EngineResult:
    completion = output.outputs[0]
    token_ids = tuple(completion.token_ids)
    positions: Any = completion.logprobs or ()
    logprobs_T = tuple(position[token].logprob for position, token in zip(positions, token_ids, strict=False))
    digits = prefill = None
    if request.digit_ids is not None:
        digits = tuple(positions[0][token].logprob for token in request.digit_ids)
    if request.prefill_from is not None:
        ids, offset = request.token_ids, request.prefill_from
        scored = (output.prompt_logprobs or [])[offset:]
        prefill = tuple(position[token].logprob for position, token in zip(scored, ids[offset:], strict=True) if position is not None)
    spans = tuple(VersionSpan(label_step(span.version), span.start, span.end) for span in completion.weight_versions or ())
    return EngineResult(token_ids, logprobs_T, "stop" if completion.finish_reason == "stop" else "length", spans, digits, prefill)
