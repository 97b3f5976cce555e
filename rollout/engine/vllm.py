"""The inference engine: vLLM's `AsyncLLM` behind `rollout.engine.Engine`, with new weights while sequences are in flight.

Processes: this one (client, asyncio) and one EngineCore child that owns the model. The child takes a weight version through vLLM's
weight-transfer API (`vllm_weights.py`), which also stamps the version on every token sampled afterwards. The child is no Ray worker,
so of the object store it gets a path; a broadcast, or the learner's memory on the same GPU, it joins by itself.

    generate       waits while the door is shut ─► add_request under the salt of the version loaded ─► outputs
    load_weights   prepare_weights (not for a file) ─► shut the door, wait for requests on its threshold ─► pause(keep)
                   ─► start_weight_update ─► update_weights ─► finish(label) ─► resume, open the door
                   sequences in flight keep their key-values and go on under the new weights; what comes later has a new salt
                   and never meets a key-value of older weights
                   (a version that is an adapter replaces the one before it in place: sequences in flight go on under it too)

An update that fails after its first write leaves a mixture of weights: the engine is marked dead and never resumed. One that cannot
be prepared is TransferFailed, and the engine goes on with the version it has.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

# Read when vLLM is imported. 0: EngineCore runs its worker in-process (two processes per engine instead of three).
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

import torch
from vllm.config.lora import MaxLoRARanks
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdateRequest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind as RequestOutputKind
from vllm.sampling_params import SamplingParams as SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from dynalign.configs.errors import DeadlineExceeded, EngineError, TransferFailed, WeightsError
from dynalign.configs.sections.rollout import RolloutSettings
from dynalign.rollout.engine.base import EngineRequest, EngineResult
from dynalign.rollout.engine.vllm_weights import BACKEND, EXTENSION
from dynalign.rollout.records import VersionSpan
from dynalign.rollout.weights.source import Source, described
from dynalign.rollout.weights.version import AdapterEntry, Manifest, label_step
from dynalign.rollout.weights.version_file import tensors_in, untrained_adapter, write_adapter

_REQUEST_DEADLINE_S = 1800.0  # longest single request; a silent engine must not hold a lease for ever


class _Adapter:
    """The adapter that every request of one engine carries. All versions bear one name and id and lie in one folder, so that loading
    a version replaces the one before it, in the sequences in flight too."""

    def __init__(self, entry: AdapterEntry, model: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dynalign-adapter-")
        self.entry = entry
        self.write(
            untrained_adapter(model, entry)
        )  # a request without any adapter would never take up the first one

    def write(self, tensors: dict[str, torch.Tensor]) -> None:
        write_adapter(Path(self._folder.name), self.entry, tensors)

    def request(self, load_inplace: bool = False) -> LoRARequest:
        return LoRARequest("policy", 1, self._folder.name, load_inplace=load_inplace)

    def engine_arguments(self) -> dict[str, Any]:
        """One slot, in the layers that carry an adapter only: wrapped experts would give up their fused kernels for nothing."""
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
        self._label, self._adapter = label, adapter
        self._dead: str | None = None
        self._requests = 0
        self._door = asyncio.Condition()
        self._open = True
        self._on_threshold = 0

    @staticmethod
    async def start(
        model: str,
        settings: RolloutSettings,
        max_model_len: int,
        label: str,
        seed: int = 0,
        adapter: AdapterEntry | None = None,
        name: str | None = None,
        metrics: Any = None,
    ) -> "VllmEngine":
        """Loads the folder `model` as version `label`; contexts and completions together hold `max_model_len` tokens.

        adapter: what `travelling_adapter` says of the run. With it every version must be such an adapter, without it none may be.
        metrics: the module ray.util.metrics, through which vLLM then reports its own metrics as the model `name`; None: it reports none.
        """
        held = None if adapter is None else _Adapter(adapter, Path(model))
        cache_bytes = (
            int(settings.kv_cache_gib * 2**30) // settings.tensor_parallel
        )  # vLLM's figure is one GPU's
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
            disable_log_stats=True,
            **device_arguments(cache_bytes),
            **({} if held is None else held.engine_arguments()),
        )
        loggers = None if metrics is None else [ray_logger(metrics)]
        engine = VllmEngine(AsyncLLM.from_engine_args(arguments, stat_loggers=loggers), label, held)
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
            raise EngineError(
                f"vLLM refused a request of {len(request.token_ids)} tokens: {error}"
            ) from error
        return _result(request, output)

    async def _submit(self, request: EngineRequest) -> Any:
        async with self._door:
            await self._door.wait_for(lambda: self._open)
            self._on_threshold += 1
        try:
            self._requests += 1
            prompt: Any = {"prompt_token_ids": list(request.token_ids), "cache_salt": self._label}
            lora = None if self._adapter is None else self._adapter.request()
            return await self._llm.add_request(
                str(self._requests), prompt, _sampling_params(request), lora_request=lora
            )
        finally:
            async with self._door:
                self._on_threshold -= 1
                self._door.notify_all()

    async def load_weights(self, label: str, manifest: bytes, source: Source) -> float:
        """See `Engine.load_weights`. But for TransferFailed, whatever ends it early, a cancellation too, leaves the engine dead."""
        whole: dict[str, Any] = {"source": described(source), "manifest": manifest}
        if not isinstance(source, Path):
            await self._prepare(label, whole)
            whole["source"] = None
        llm = self._llm
        async with self._door:
            self._open = False
            await self._door.wait_for(lambda: self._on_threshold == 0)
        try:
            adapter = self._adapter_of(label, manifest)
            # `pause_generation` without the 20 ms that it sleeps afterwards. The step that was going on has given its tokens.
            await llm.engine_core.pause_scheduler_async(mode="keep", clear_cache=False)
            paused_s = time.monotonic()
            if adapter is None:
                await llm.start_weight_update()
                await llm.update_weights(WeightTransferUpdateRequest(update_info=whole))
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
            async with self._door:
                self._open = True
                self._door.notify_all()
        return time.monotonic() - paused_s

    async def _prepare(self, label: str, whole: dict[str, Any]) -> None:
        """Raises TransferFailed, which costs the engine nothing but the time."""
        try:
            answers = await self._llm.collective_rpc("prepare_weights", kwargs=whole)
        except EngineDeadError as error:
            raise self._died(f"EngineCore died: {error}") from error
        if reasons := [answer for answer in answers if answer]:
            raise TransferFailed(f"version {label}: {reasons[0]}")

    def _adapter_of(self, label: str, manifest: bytes) -> _Adapter | None:
        travels = Manifest.unpack(manifest).adapter
        if travels != (None if self._adapter is None else self._adapter.entry):
            raise WeightsError(
                f"version {label} brings {travels or 'whole weights'}, the engine was started for others"
            )
        return self._adapter

    async def sleep(self) -> None:
        if torch.cuda.is_available():
            await self._llm.sleep(
                level=1
            )  # keeps the weights in host memory: what wakes up is whole, whatever is loaded next

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


def device_arguments(cache_bytes: int) -> dict[str, Any]:
    """vLLM's arguments that are others on a GPU than on a CPU."""
    if not torch.cuda.is_available():
        # A seeded request whose prompt is cut in two ends vLLM's process on a CPU, whose random generators cannot be set back.
        return {"enable_chunked_prefill": False}
    # The cache's size is given, and the plan has found room for the rest; vLLM would nevertheless refuse to start where less than 92 % of
    # the GPU is free, as it is beside a learner.
    share = cache_bytes / current_platform.get_device_total_memory()
    return {"enable_sleep_mode": True, "gpu_memory_utilization": min(share, 1.0)}


def ray_logger(metrics: Any) -> Any:
    """vLLM's logger for Ray's metrics. vLLM looks for them itself only where Ray Serve is installed."""
    from vllm.v1.metrics import ray_wrappers  # brings Ray, which an engine outside a cluster does without

    wrappers: Any = ray_wrappers
    wrappers.ray_metrics = metrics
    return wrappers.RayPrometheusStatLogger


def _file(source: Source) -> Path:
    if not isinstance(source, Path):
        raise WeightsError("an adapter comes as a file")
    return source


def _sampling_params(request: EngineRequest) -> SamplingParams:
    common: dict[str, Any] = {"output_kind": RequestOutputKind.FINAL_ONLY, "detokenize": False}
    if request.fresh:
        common["skip_reading_prefix_cache"] = True
    if request.prefill_from is not None:
        return SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, **common)
    if request.digit_ids is not None:
        digits = list(request.digit_ids)
        # allowed_token_ids leaves the reported log-probabilities raw (a grammar would renormalize them over the digits).
        return SamplingParams(
            temperature=0.0, max_tokens=1, allowed_token_ids=digits, logprob_token_ids=digits, **common
        )
    schema = None if request.json_schema is None else StructuredOutputsParams(json=request.json_schema)
    sampled: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "seed": request.seed,
        "logprobs": 0,
        "structured_outputs": schema,
    }
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
        prefill = tuple(
            position[token].logprob
            for position, token in zip(scored, ids[offset:], strict=True)
            if position is not None
        )
    spans = tuple(
        VersionSpan(label_step(span.version), span.start, span.end)
        for span in completion.weight_versions or ()
    )
    return EngineResult(
        token_ids,
        logprobs_T,
        "stop" if completion.finish_reason == "stop" else "length",
        spans,
        digits,
        prefill,
    )
