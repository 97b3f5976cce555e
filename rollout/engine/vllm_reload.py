"""New weights into a model that vLLM has loaded: its layerwise reload, with what that would leave as it was, without an error.

    begin_reload    every layer gives up its tensors and waits for new ones
    take_in         a layer that has all of its new tensors is made ready for its kernels, in the memory of the old ones
    finish_reload   layers that wait for nothing get theirs back; on a CPU, what kernels keep packed for themselves is packed again

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

# vLLM writes gpt-oss's attention sinks past the weight loaders that a reload waits for. Taken away for the reload, they would come back
# with their old values; left in place, they are written there.
SKIP_TENSORS.add("sinks")
SKIP_LOAD_TENSORS.add("sinks")

_FUSED = re.compile(r"(.*\.mlp\.experts)\.(gate_up_proj|down_proj)(_bias)?")
_OF_ONE_EXPERT = {"gate_up_proj": "w13", "down_proj": "w2"}


def begin_reload(model: nn.Module) -> None:
    initialize_layerwise_reload(model)


def take_in(model: Any, config: Any, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """A whole version under its names on disk; `config`: vLLM's ModelConfig.

    :raises WeightsError: a layer was given nothing. It would keep its old weights, and vLLM would merely warn.
    """
    text = config.hf_text_config
    model.load_weights(_one_expert_at_a_time(tensors) if text.model_type == "gpt_oss" else tensors)
    old = [
        name for name in _without_news(model) if not (text.tie_word_embeddings and name == "lm_head.weight")
    ]
    if old:
        raise WeightsError(
            f"a version left {len(old)} of the engine's tensors as they were, the first is {old[0]}"
        )


def finish_reload(model: Any, config: Any) -> None:
    finalize_layerwise_reload(model, config)  # type: ignore[no-untyped-call]
    pack_again(model, config.hf_text_config.tie_word_embeddings)


def _one_expert_at_a_time(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """gpt-oss's fused experts under vLLM's own names for one: `…mlp.experts.7.w13_weight`. Fused they are written past their loaders."""
    for name, tensor in tensors:
        fused = _FUSED.fullmatch(name)
        if fused is None:
            yield name, tensor
            continue
        for expert, part in enumerate(tensor):
            yield f"{fused[1]}.{expert}.{_OF_ONE_EXPERT[fused[2]]}{fused[3] or '_weight'}", part


def _without_news(model: nn.Module) -> Iterator[str]:
    for name, layer in model.named_modules():
        info = get_layerwise_info(layer)
        if info.can_load() and info.load_numel == 0:
            yield from (
                f"{name}.{tensor}"
                for tensor, _ in layer.named_parameters(recurse=False)
                if tensor not in SKIP_LOAD_TENSORS
            )
