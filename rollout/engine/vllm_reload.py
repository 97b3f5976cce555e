"""vLLM's layerwise reload, plus a check that no tensor silently keeps its old value.

    begin_reload    every layer sets its tensors aside and waits for new ones
    take_in         a layer with all its new tensors prepares them for its kernels, in the old ones' memory
    finish_reload   layers that waited for nothing get theirs back; on a CPU, packed copies are made anew

The model must not run between the first and the last of them.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
from vllm.model_executor.model_loader.reload.meta import SKIP_LOAD_TENSORS, SKIP_TENSORS

from dynalign.configs.errors import WeightsError
from dynalign.rollout.engine.vllm_cpu import pack_again

# vLLM writes gpt-oss's attention sinks without the weight loaders that a reload waits for. If the reload set
# them aside, they would come back with their old values; left where they are, they are overwritten.
SKIP_TENSORS.add("sinks")
SKIP_LOAD_TENSORS.add("sinks")

# Names of gpt-oss's fused experts on disk.
_FUSED = re.compile(r"(.*\.mlp\.experts)\.(gate_up_proj|down_proj)(_bias)?")
_OF_ONE_EXPERT = {"gate_up_proj": "w13", "down_proj": "w2"}


def begin_reload(model: nn.Module) -> None:
    """Sets all layers' tensors aside."""
    initialize_layerwise_reload(model)


def take_in(model: Any, config: Any, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Loads all tensors of a version, under their names on disk. config: vLLM's ModelConfig.

    Raises WeightsError if a layer received nothing: it would keep its old weights, and vLLM would only warn.
    """
    text = config.hf_text_config
    model.load_weights(_one_expert_at_a_time(tensors) if text.model_type == "gpt_oss" else tensors)
    shared = {"lm_head.weight"} if text.tie_word_embeddings else set()
    old = [name for name in _not_received(model) if name not in shared]
    if old:
        cause = f"left {len(old)} of the engine's tensors as they were, the first is {old[0]}"
        raise WeightsError(f"a version {cause}")


def finish_reload(model: Any, config: Any) -> None:
    """Ends the reload; the model may run again."""
    finalize_layerwise_reload(model, config)  # type: ignore[no-untyped-call]
    pack_again(model, config.hf_text_config.tie_word_embeddings)


def _one_expert_at_a_time(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """gpt-oss's fused experts, each under vLLM's name for a single one: `…mlp.experts.7.w13_weight`.

    As fused tensors vLLM would write them without their weight loaders."""
    for name, tensor in tensors:
        fused = _FUSED.fullmatch(name)
        if fused is None:
            yield name, tensor
            continue
        for expert, part in enumerate(tensor):
            yield f"{fused[1]}.{expert}.{_OF_ONE_EXPERT[fused[2]]}{fused[3] or '_weight'}", part


def _not_received(model: nn.Module) -> Iterator[str]:
    """Names of the tensors whose layer has received nothing in this reload."""
    for name, layer in model.named_modules():
        info = get_layerwise_info(layer)
        if info.can_load() and info.load_numel == 0:
            yield from (
                f"{name}.{tensor}"
                for tensor, _ in layer.named_parameters(recurse=False)
                if tensor not in SKIP_LOAD_TENSORS
            )
