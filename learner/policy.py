"""The policy in training: packed rows in, log-probabilities of completion tokens out; and its weights by
name.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils.logging import disable_progress_bar
from transformers.utils.quantization_config import Mxfp4Config

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.sections.learner import LearnerSettings, LoraSettings
from dynalign.learner.head.fused_head import TokenLoss, head_loss, is_fusable
from dynalign.learner.head.logprobs import completion_logprobs
from dynalign.learner.head.spare_cores import DeferredGradients
from dynalign.learner.packing_probe import packing_mistakes
from dynalign.learner.rows.attention import PACKED
from dynalign.learner.rows.rows import Layout
from dynalign.learner.rows.varlen import VarlenKernel, VarlenRow
from dynalign.learner.weight_files import tensors, weight_files

ADAPTER = "default"
"""peft's name for the one adapter of a model."""


@dataclass(frozen=True)
class NamedWeight:
    """One tensor of the policy."""

    name: str
    """The name of its parameter in the model without adapters."""
    parameters: tuple[nn.Parameter, ...]
    """The parameters from which `value` is computed."""
    value: Callable[[], Tensor]
    """Returns the tensor. At ZeRO 3 it may be called only while all `parameters` are gathered."""


class Policy(nn.Module):
    """A causal language model over packed rows.

    kernel: computes the attention of a whole row in one call; None: a call for each of its parts.
    """

    def __init__(self, model: PreTrainedModel, chunk_tokens: int) -> None:
        super().__init__()
        self.model = model
        self.chunk_tokens = chunk_tokens
        self.deferred: DeferredGradients | None = None
        self.kernel: VarlenKernel | None = None

    def forward(
        self,
        input_ids_S: Tensor,
        position_ids_S: Tensor,
        layout: Layout,
        predicting_T: Tensor,
        targets_T: Tensor,
        chunks: int,
        loss: TokenLoss | None = None,
    ) -> tuple[Tensor, ...]:
        """Return ``(logprobs_T, entropy_T)`` of a row, float32, nats.

        Axes: S input tokens, T completion tokens. The first parameters are the fields of `rows.Row` of the
        same name. Logits exist for at most `chunk_tokens` completion tokens at a time.

        loss: a sum over completion tokens. With it, the result is ``(loss, logprobs_T, entropy_T)``; only the
        first has a gradient.
        """
        if self.deferred is not None and torch.is_grad_enabled():
            self.deferred.hold()
        decoder = self.model.get_decoder()  # type: ignore[no-untyped-call]
        head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        varlen = None if self.kernel is None else VarlenRow.of(layout, self.kernel, input_ids_S.device)
        output = decoder(
            input_ids=input_ids_S[None],
            position_ids=position_ids_S[None],
            use_cache=False,
            layout=layout,
            varlen=varlen,
        )
        hidden_TH = output.last_hidden_state[0].index_select(0, predicting_T)
        if loss is not None and is_fusable(head):
            return head_loss(hidden_TH, head.weight, targets_T, loss, self.chunk_tokens)
        logprobs_T, entropy_T = completion_logprobs(hidden_TH, head, targets_T, self.chunk_tokens, chunks)
        if loss is None:
            return logprobs_T, entropy_T
        return loss(logprobs_T, slice(None)), logprobs_T.detach(), entropy_T

    @property
    def vocabulary_size(self) -> int:
        """The number of rows of the embedding; every token id is below it."""
        return int(self.model.config.get_text_config().vocab_size)

    def _adapters(self) -> dict[str, Any]:
        """Return the layers that have an adapter, by the name of their weight in the model without
        adapters."""
        return {
            f"{name}.weight": module
            for name, module in self.model.named_modules()
            if hasattr(module, "lora_A")
        }

    @contextmanager
    def initial(self) -> Iterator[None]:
        """In this context, the policy with adapters computes what the initial model does.

        The adapters' scale is set to 0. Skipping them would change the order in which sharded parameters are
        gathered.
        """
        scales = [module.scaling for module in self._adapters().values()]
        before = [scale[ADAPTER] for scale in scales]
        for scale in scales:
            scale[ADAPTER] = 0.0
        try:
            yield
        finally:
            for scale, value in zip(scales, before, strict=True):
                scale[ADAPTER] = value

    def weights(self) -> Iterator[NamedWeight]:
        """Yield every tensor of the model, adapters merged in float32, tied tensors once.

        `on_disk` translates them into the names of the released checkpoint.
        """
        adapters = self._adapters()
        seen: set[int] = set()
        for key, tensor in self.model.state_dict(keep_vars=True).items():
            name = key.replace(".base_layer.", ".")
            if ".lora_" in key or id(tensor) in seen:
                continue
            seen.add(id(tensor))
            if name in adapters:
                yield _merged(name, tensor, adapters[name])
            else:
                yield NamedWeight(name, (tensor,) if isinstance(tensor, nn.Parameter) else (), tensor.detach)

    def on_disk(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Yield the same tensors under the names and in the layout of the released checkpoint, which engines
        expect.

        The two differ because transformers fuses the experts of some architectures when it loads them.
        """
        for name, tensor in tensors:
            yield from revert_weight_conversion(self.model, {name: tensor}).items()

    def adapter_weights(self) -> Iterator[NamedWeight]:
        """Yield the adapters' factors under the names by which peft saves them."""
        for name, parameter in self.model.named_parameters():
            if ".lora_" in name:
                saved_name = f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}"
                yield NamedWeight(saved_name, (parameter,), parameter.detach)


def _merged(name: str, base: nn.Parameter, adapter: Any) -> NamedWeight:
    """Return W + scale · B A (LoRA, arXiv 2106.09685), computed in float32."""
    down = adapter.lora_A[ADAPTER].weight
    up = adapter.lora_B[ADAPTER].weight
    scale = adapter.scaling[ADAPTER]

    @torch.no_grad()
    def value() -> Tensor:
        merged: Tensor = base.float() + scale * (up.float() @ down.float())
        return merged

    return NamedWeight(name, (base, down, up), value)


def load_policy(
    model_folder: Path,
    settings: LearnerSettings,
    dtype: torch.dtype,
    seed: int,
    content: Literal["full", "adapter"] = "full",
    probed: bool = True,
) -> Policy:
    """Load the policy of `model_folder` in training mode, without dropout, with adapters if the settings ask
    for them.

    dtype: of the weights. seed: initializes the adapters.
    content: what is published to the engines: all weights, or the adapters alone.
    probed: whether the packing is tried, which takes 4 bytes of host memory per parameter for seconds.

    Raises UserError if the folder's tensors cannot be published under their names on disk, if the
    architecture cannot be packed, if the weights are not finite, or if a name in `learner.lora.targets` is
    that of no layer, or of a head whose weight is the embedding's.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]
    unquantized = _unquantized(model_folder)
    model = AutoModelForCausalLM.from_pretrained(
        model_folder,
        dtype=dtype,
        attn_implementation=PACKED,
        local_files_only=True,
        trust_remote_code=False,
        **unquantized,
    )
    if unquantized:
        # transformers records how it unpacked the weights; `on_disk` must not revert that.
        vars(model)["_weight_conversions"] = None
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    policy = Policy(model, settings.logprob_chunk_tokens)
    mistakes = packing_mistakes(model, policy, model_folder) if probed else []
    if content == "full":
        mistakes += _names_not_on_disk(policy, model_folder)
    if mistakes:
        raise UserError(mistakes)
    if settings.lora is not None:
        _add_adapters(model, settings.lora, seed)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return policy.train()


def _unquantized(model_folder: Path) -> dict[str, Any]:
    """Return the arguments that load a quantized folder for training; none for a folder that is not
    quantized.

    gpt-oss is released with experts in MXFP4, which have an exact bfloat16 form.
    """
    loaded = AutoConfig.from_pretrained(model_folder, local_files_only=True, trust_remote_code=False)
    config = loaded.to_dict()
    quantization = config.get("quantization_config")
    if quantization is None:
        return {}
    method = quantization["quant_method"]
    if method == "mxfp4":
        kept = quantization.get("modules_to_not_convert")
        return {"quantization_config": Mxfp4Config(dequantize=True, modules_to_not_convert=kept)}
    rule = f"its weights are quantized ({method}), and quantized weights cannot be trained"
    raise UserError([Mistake("model", str(model_folder), rule, "use a folder of unquantized weights")])


def _names_not_on_disk(policy: Policy, model_folder: Path) -> list[Mistake]:
    """Return a mistake if a published tensor has a name or shape that the engine does not know from the
    folder it loaded.
    """
    on_disk: dict[str, tuple[int, ...]] = {}
    for file in weight_files(model_folder):
        on_disk |= {name: tuple(tensor["shape"]) for name, tensor in (tensors(file) or {}).items()}
    published = policy.on_disk(
        (weight.name, torch.empty_like(weight.value(), device="meta")) for weight in policy.weights()
    )
    missing = [name for name, tensor in published if on_disk.get(name) != tuple(tensor.shape)]
    if not missing:
        return []
    rule = (
        f"{len(missing)} tensors have no safetensors entry of their name and shape, the first is {missing[0]}"
    )
    remedy = "use a folder of unquantized safetensors whose layout transformers does not convert"
    return [Mistake("model", str(model_folder), rule, remedy)]


def _add_adapters(model: PreTrainedModel, settings: LoraSettings, seed: int) -> None:
    # imported here because it takes seconds, and few runs need it
    from peft import LoraConfig, inject_adapter_in_model

    alpha: Any = settings.alpha  # peft declares an int and uses a float
    config = LoraConfig(r=settings.rank, lora_alpha=alpha, target_modules=list(settings.targets), bias="none")
    names = {
        name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    unknown = [target for target in settings.targets if target not in names]
    if unknown:
        remedy = f"this model has {', '.join(sorted(names))}"
        raise UserError(
            Mistake("learner.lora.targets", target, "no linear layer has this name", remedy)
            for target in unknown
        )
    embedding = model.get_input_embeddings().weight
    tied = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight is embedding
    }
    if tied.intersection(settings.targets):
        rule = "its weight is that of the input embedding, so an adapter on it could not be published"
        raise UserError(
            Mistake("learner.lora.targets", target, rule, "remove it from the targets")
            for target in settings.targets
            if target in tied
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, ADAPTER)
