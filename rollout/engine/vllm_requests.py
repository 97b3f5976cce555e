"""Between dynalign's requests and results and vLLM's."""

from typing import Any, Literal

from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind as RequestOutputKind
from vllm.sampling_params import SamplingParams as SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from dynalign.rollout.engine.base import EngineRequest, EngineResult
from dynalign.rollout.records import VersionSpan
from dynalign.rollout.weights.version import label_lineage, label_step


def sampling_params(request: EngineRequest) -> SamplingParams:
    """vLLM's parameters of a request of any of the three kinds."""
    # FINAL_ONLY: one output with the complete answer, instead of one per step.
    common: dict[str, Any] = {"output_kind": RequestOutputKind.FINAL_ONLY, "detokenize": False}
    if request.fresh:
        common["skip_reading_prefix_cache"] = True
    if request.prefill_from is not None:
        return SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, **common)
    if request.choice_ids is not None:
        # allowed_token_ids leaves the reported log-probabilities raw; a grammar would renormalize them over
        # the choices.
        choices = list(request.choice_ids)
        asked: dict[str, Any] = {"allowed_token_ids": choices, "logprob_token_ids": choices}
        return SamplingParams(temperature=0.0, max_tokens=1, **asked, **common)
    schema = None if request.json_schema is None else StructuredOutputsParams(json=request.json_schema)
    sampled: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "seed": request.seed,
        "logprobs": 0,
        "structured_outputs": schema,
        "stop_token_ids": list(request.stop_ids),
    }
    return SamplingParams(temperature=request.temperature, top_p=1.0, top_k=0, **sampled, **common)


def engine_result(request: EngineRequest, output: RequestOutput) -> EngineResult:
    """What vLLM's output says about a request."""
    completion = output.outputs[0]
    token_ids = tuple(completion.token_ids)
    positions: Any = completion.logprobs or ()
    logprobs_T = tuple(position[token].logprob for position, token in zip(positions, token_ids, strict=False))
    choices: tuple[float, ...] | None = None
    prefill: tuple[float, ...] | None = None
    if request.choice_ids is not None:
        choices = tuple(positions[0][token].logprob for token in request.choice_ids)
    if request.prefill_from is not None:
        ids = request.token_ids[request.prefill_from :]
        scored = (output.prompt_logprobs or [])[request.prefill_from :]
        pairs = zip(scored, ids, strict=True)
        prefill = tuple(position[token].logprob for position, token in pairs if position is not None)
    stamped = completion.weight_versions or ()
    spans = tuple(
        VersionSpan(label_step(span.version), span.start, span.end, label_lineage(span.version))
        for span in stamped
    )
    reason: Literal["stop", "length"] = "stop" if completion.finish_reason == "stop" else "length"
    return EngineResult(token_ids, logprobs_T, reason, spans, choices, prefill)
