"""Three gaps of vLLM on a CPU, closed: experts beside adapters, requests without an adapter beside others,
and packed copies after a reload.

Importing this module in vLLM's process closes the first two; it must happen before a model is built.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu
from vllm.model_executor.layers.fused_moe import layer as expert_layer
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.platforms import current_platform

Shrink = Callable[[Tensor, Tensor, Tensor, Tensor, float], None]
"""vLLM's first half of an adapter: inputs [T, in], factors A [adapters, 1, rank, in], output [T, rank], the
adapter of each token [T], scale."""


def adapters_apart(shrink: Shrink) -> Shrink:
    """Returns `shrink` with an output of 0 for tokens without an adapter.

    vLLM's own takes their number, -1, for the index of the last adapter. So beside requests with an adapter
    the initial policy would answer with it. Factor B makes 0 of 0."""

    def apart(
        inputs: Tensor, factors_a: Tensor, output: Tensor, adapter_T: Tensor, scaling: float = 1.0
    ) -> None:
        shrink(inputs, factors_a, output, adapter_T, scaling)
        output.masked_fill_((adapter_T < 0)[:, None], 0)

    return apart


if current_platform.is_cpu():
    # For a model with adapters on any layer vLLM chooses Triton kernels for the experts, and a CPU has none.
    # Our adapters are never on experts, since peft takes linear layers only.
    _described = vars(expert_layer)["FusedMoEConfig"]
    without_lora = {"is_lora_enabled": False}
    vars(expert_layer)["FusedMoEConfig"] = lambda **fields: _described(**(fields | without_lora))
    # `sgmv_shrink`, for prompts, calls the first of them; decoding calls the second.
    _shrink = adapters_apart(vars(lora_ops)["bgmv_shrink"])
    vars(lora_ops)["bgmv_shrink"] = _shrink
    vars(punica_cpu)["bgmv_shrink"] = _shrink


def pack_again(model: Any, tied: bool) -> None:
    """Renews the packed copies of weights that CPU kernels keep; to be called after a reload.

    model: vLLM's. tied: whether the head shares the embedding's weights."""
    if not current_platform.is_cpu():
        return
    if tied:  # the head has a packed copy of its own
        model.lm_head.quant_method.process_weights_after_loading(model.lm_head)
    for layer in model.modules():
        if isinstance(layer, RoutedExperts):  # vLLM packs them once, when it makes their kernel
            experts: Any = layer
            experts.quant_method.moe_kernel.fused_experts.process_weights_after_loading(experts)
