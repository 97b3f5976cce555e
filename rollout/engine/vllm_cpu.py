"""Two gaps of vLLM on a CPU, closed: experts beside adapters, and packed copies after a reload.

Importing this module in vLLM's process closes the first; it must happen before a model is built.
"""

from typing import Any

from vllm.model_executor.layers.fused_moe import layer as expert_layer
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.platforms import current_platform

if current_platform.is_cpu():
    # For a model with adapters on any layer vLLM chooses Triton kernels for the experts, and a CPU has none.
    # Our adapters are never on experts, since peft takes linear layers only.
    _described = vars(expert_layer)["FusedMoEConfig"]
    without_lora = {"is_lora_enabled": False}
    vars(expert_layer)["FusedMoEConfig"] = lambda **fields: _described(**(fields | without_lora))


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
