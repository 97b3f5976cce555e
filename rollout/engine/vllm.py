"""The inference engine: vLLM's `AsyncLLM` behind the `Engine` protocol.

There are two processes: this one (the client, asyncio) and its child EngineCore, which owns the model. The
child loads a weight version through vLLM's weight-transfer API (`vllm_weights.py`), which also stamps the
version on every token sampled afterwards. The child is no Ray worker: a version in the object store is
given to it as a path. It joins a broadcast, or opens the learner's memory on the same GPU, by itself.

    generate       wait while requests are blocked ─► add_request, salted with the loaded version ─► result
    load_weights   prepare_weights (not for a file)
                   ─► block new requests, wait until those being submitted are queued ─► pause(keep)
                   ─► start_weight_update ─► update_weights ─► finish(label) ─► resume, unblock

Sequences in flight keep their key-values and go on under the new weights. Later requests have a new salt,
and never read a key-value of older weights. A version that is an adapter overwrites the one before it, for
sequences in flight too.

An update that fails after its first write leaves a mixture of weights: the engine is marked dead and never
resumed. A version that cannot be prepared is TransferFailed: the engine goes on with the version it has.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

# Read when vLLM is imported. 0: EngineCore runs its worker in-process, so an engine has two processes, not
# three.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

import torch
from vllm.config.lora import MaxLoRARanks
from vllm.config.structured_outputs import StructuredOutputsConfig
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdateRequest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from dynalign.configs.errors import (
    DeadlineExceeded,
    EngineError,
    RequestRefused,
    TransferFailed,
    WeightsError,
    one_line,
)
from dynalign.rollout.engine.base import EngineRequest, EngineResult, EngineSettings
from dynalign.rollout.engine.swap_gate import SwapGate
from dynalign.rollout.engine.vllm_requests import engine_result, sampling_params
from dynalign.rollout.engine.vllm_weights import BACKEND, EXTENSION
from dynalign.rollout.weights.source import Source, described
from dynalign.rollout.weights.version import AdapterEntry, Manifest
from dynalign.rollout.weights.version_file import tensors_in, untrained_adapter, write_adapter

# Longest single request. An engine that answers nothing must not hold a lease for ever.
_REQUEST_DEADLINE_S = 1800.0
# A grammar allows blanks between the signs of an object, and a weak model writes them up to the limit.
_COMPACT_JSON = StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True)
_INITIAL = "initial"
"""Salt of the prefix cache of requests to the initial policy; those of versions are `<lineage>.<step>`."""


class _Adapter:
    """The adapter that every request of one engine carries.

    All versions have one name, one id and one folder, so that loading a version replaces the one before
    it, for the sequences in flight too."""

    def __init__(self, entry: AdapterEntry, model: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dynalign-adapter-")
        self.entry = entry
        # A request that starts without an adapter would never get the first one.
        self.write(untrained_adapter(model, entry))

    def write(self, tensors: dict[str, torch.Tensor]) -> None:
        write_adapter(Path(self._folder.name), self.entry, tensors)

    def request(self, load_inplace: bool = False) -> LoRARequest:
        return LoRARequest("policy", 1, self._folder.name, load_inplace=load_inplace)

    def engine_arguments(self) -> dict[str, Any]:
        """One slot, in the target layers only: wrapped experts would lose their fused kernels."""
        rank = min(rank for rank in get_args(MaxLoRARanks) if rank >= self.entry.rank)
        return {
            "enable_lora": True,
            "max_loras": 1,
            "max_lora_rank": rank,
            "lora_target_modules": list(self.entry.targets),
        }


class VllmEngine:
    """One vLLM engine. Build it with `start` on the event loop that will use it."""

    def __init__(self, llm: AsyncLLM, label: str, adapter: _Adapter | None) -> None:
        self._running: AsyncLLM | None = llm
        self._label = label
        self._adapter = adapter
        self._dead: str | None = None
        """Why the engine ended."""
        self._requests = 0
        self._gate = SwapGate()
        """Requests pass it on their way into vLLM's queue, and wait there while a version is loaded."""

    @staticmethod
    async def start(
        model: str,
        settings: EngineSettings,
        max_model_len: int,
        label: str,
        seed: int = 0,
        adapter: AdapterEntry | None = None,
        name: str | None = None,
        metrics: Any = None,
    ) -> "VllmEngine":
        """Starts an engine that holds a model folder.

        model: the folder. max_model_len: most tokens of a context and its completion together. label: the
        version's name. adapter: see `travelling_adapter`; with it every version must be such an adapter,
        without it none may be. metrics: the module ray.util.metrics, through which vLLM then reports its
        own metrics as the model `name`; None for no metrics.
        """
        held = None if adapter is None else _Adapter(adapter, Path(model))
        cache_bytes = (
            int(settings.kv_cache_gib * 2**30) // settings.tensor_parallel
        )  # vLLM's figure is per GPU
        arguments = AsyncEngineArgs(
            model=model,
            dtype=settings.dtype,
            seed=seed,
            max_model_len=max_model_len,
            max_num_seqs=settings.max_sequences,
            block_size=settings.block_size,
            tensor_parallel_size=settings.tensor_parallel,
            kv_cache_memory_bytes=cache_bytes,
            enforce_eager=settings.eager,
            enable_prefix_caching=True,
            worker_extension_cls=EXTENSION,
            weight_transfer_config=WeightTransferConfig(backend=BACKEND),
            served_model_name=name,
            structured_outputs_config=_COMPACT_JSON,
            disable_log_stats=True,
            **device_arguments(cache_bytes, _gpu_memory_bytes()),
            **({} if held is None else held.engine_arguments()),
        )
        loggers = None if metrics is None else [ray_logger(metrics)]
        engine = VllmEngine(AsyncLLM.from_engine_args(arguments, stat_loggers=loggers), label, held)
        await engine._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info={}))
        await engine._llm.update_weight_version(label)
        return engine

    async def generate(self, request: EngineRequest) -> EngineResult:
        """See `Engine.generate`."""
        try:
            async with asyncio.timeout(_REQUEST_DEADLINE_S):
                queue = await self._submit(request)
                try:
                    output = await queue.get()
                except asyncio.CancelledError:
                    await self._llm.abort(queue.request_id, internal=True)
                    raise
        except TimeoutError as error:
            raise DeadlineExceeded("the engine's answer to one request", _REQUEST_DEADLINE_S) from error
        except EngineDeadError as error:
            raise self._died(f"EngineCore died: {error}") from error
        except EngineGenerateError as error:
            raise EngineError(
                f"vLLM failed at a request of {len(request.token_ids)} tokens: {error}"
            ) from error
        except (VLLMClientError, ValueError) as error:
            length = len(request.token_ids)
            raise RequestRefused(f"vLLM refused a request of {length} tokens: {one_line(error)}") from error
        return engine_result(request, output)

    async def _submit(self, request: EngineRequest) -> Any:
        """Queues a request under the version that is loaded; waits while a version is being loaded.

        Raises EngineError for the initial policy where whole weights have replaced it."""
        if request.initial and self._adapter is None:
            raise EngineError("the initial policy is asked, and this engine's versions replace all weights")
        async with self._gate.passing():
            self._requests += 1
            # The weights below the adapter never change, so what they have computed stays valid.
            salt = _INITIAL if request.initial else self._label
            prompt: Any = {"prompt_token_ids": list(request.token_ids), "cache_salt": salt}
            lora = None if self._adapter is None or request.initial else self._adapter.request()
            params = sampling_params(request)
            return await self._llm.add_request(str(self._requests), prompt, params, lora_request=lora)

    async def load_weights(self, label: str, manifest: bytes, source: Source) -> float:
        """See `Engine.load_weights`. Once no request is being submitted any more, any end but success leaves
        the engine dead, a cancellation too. Before that, nothing has changed, and requests go on."""
        info: dict[str, Any] = {"source": described(source), "manifest": manifest}
        if not isinstance(source, Path):
            await self._prepare(label, info)
            info["source"] = None
        async with self._gate.swapping():
            return await self._load(label, manifest, source, info)

    async def _load(self, label: str, manifest: bytes, source: Source, info: dict[str, Any]) -> float:
        """The seconds that generation paused."""
        llm = self._llm
        try:
            adapter = self._adapter_of(label, manifest)
            # vLLM's `pause_generation` without its sleep of 20 ms. It returns when the step under way has
            # returned its tokens.
            await llm.engine_core.pause_scheduler_async(mode="keep", clear_cache=False)
            paused_s = time.monotonic()
            if adapter is None:
                await llm.start_weight_update()
                await llm.update_weights(WeightTransferUpdateRequest(update_info=info))
                await llm.finish_weight_update(weight_version=label)
            else:
                adapter.write(dict(tensors_in(_file(source), Manifest.unpack(manifest))))
                if not await llm.add_lora(adapter.request(load_inplace=True)):
                    raise WeightsError(f"vLLM did not take the adapter of version {label}")
                await llm.update_weight_version(label)
            await llm.resume_generation()
            self._label = label
        finally:
            if self._label != label:
                self._end(f"loading version {label} failed half-way")
        return time.monotonic() - paused_s

    async def _prepare(self, label: str, info: dict[str, Any]) -> None:
        """Does what can fail without harm. Raises TransferFailed; the engine is as it was then."""
        try:
            answers = await self._llm.collective_rpc("prepare_weights", kwargs=info)
        except EngineDeadError as error:
            raise self._died(f"EngineCore died: {error}") from error
        if reasons := [answer for answer in answers if answer]:
            raise TransferFailed(f"version {label}: {reasons[0]}")

    def _adapter_of(self, label: str, manifest: bytes) -> _Adapter | None:
        """The adapter to load the version into, None for whole weights.

        Raises WeightsError if the version is of the other kind."""
        travels = Manifest.unpack(manifest).adapter
        if travels != (None if self._adapter is None else self._adapter.entry):
            brought = travels or "whole weights"
            raise WeightsError(f"version {label} brings {brought}, the engine was started for others")
        return self._adapter

    async def sleep(self) -> None:
        if torch.cuda.is_available():
            # Level 1 keeps the weights in host memory, so that the engine is complete when it wakes.
            await self._llm.sleep(level=1)

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
        # Without this reference vLLM's finalizer does not run while the interpreter shuts down.
        running = self._running
        self._running = None
        self._dead = self._dead or cause
        if running is not None:
            running.shutdown()


def _gpu_memory_bytes() -> int | None:
    """Memory of the GPU, used or not; None on a CPU."""
    return int(current_platform.get_device_total_memory()) if torch.cuda.is_available() else None


def device_arguments(cache_bytes: int, gpu_bytes: int | None) -> dict[str, Any]:
    """vLLM's arguments that depend on the device. gpu_bytes: the GPU's memory, None on a CPU."""
    if gpu_bytes is None:
        # On a CPU a seeded request ends vLLM's process if its prompt is processed in chunks: vLLM then sets
        # the random generator back, which a CPU's cannot be.
        return {"enable_chunked_prefill": False}
    # The cache's size is given, and the plan has checked that the rest fits. Without this share vLLM refuses
    # to start where less than 92 % of the GPU's memory is free, as it is beside a learner.
    return {"enable_sleep_mode": True, "gpu_memory_utilization": min(cache_bytes / gpu_bytes, 1.0)}


def ray_logger(metrics: Any) -> Any:
    """vLLM's logger that reports to Ray's metrics. metrics: the module ray.util.metrics.

    By itself vLLM finds that module only where Ray Serve is installed."""
    # Not at the head: it imports Ray, which an engine outside a cluster does not need.
    from vllm.v1.metrics import ray_wrappers

    wrappers: Any = ray_wrappers
    wrappers.ray_metrics = metrics
    return wrappers.RayPrometheusStatLogger


def _file(source: Source) -> Path:
    if not isinstance(source, Path):
        raise WeightsError("an adapter comes as a file")
    return source
