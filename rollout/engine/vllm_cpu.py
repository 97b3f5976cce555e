"""What vLLM leaves undone on a CPU. Importing this module in its process, before a model is built, sees to the experts' kernels."""

from typing import Any

from vllm.model_executor.layers.fused_moe import layer as expert_layer
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.platforms import current_platform

if current_platform.is_cpu():
    # As soon as a model takes adapters, on whatever layers, vLLM computes experts by Triton kernels, and a CPU has none. Ours never
    # are on experts, which are no linear layers to peft.
    _described = vars(expert_layer)["FusedMoEConfig"]
    vars(expert_layer)["FusedMoEConfig"] = lambda **fields: _described(
        **(fields | {"is_lora_enabled": False})
    )


def pack_again(model: Any, tied: bool) -> None:
    """After a reload: what the kernels keep packed for themselves. tied: the head is the embedding."""
    if not current_platform.is_cpu():
        return
    if tied:  # the head keeps its own packed copy
        model.lm_head.quant_method.process_weights_after_loading(model.lm_head)
    for layer in model.modules():
        if isinstance(layer, RoutedExperts):  # packed when their kernel is made, and never again
            experts: Any = layer
            experts.quant_method.moe_kernel.fused_experts.process_weights_after_loading(experts)
