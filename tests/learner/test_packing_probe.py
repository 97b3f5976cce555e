"""What cannot be packed is refused before training, in one line."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AfmoeConfig,
    AutoModelForCausalLM,
    BambaConfig,
    Gemma2Config,
    Lfm2Config,
    Llama4TextConfig,
    MambaConfig,
)

from dynalign.configs.errors import UserError
from dynalign.configs.sections.learner import LearnerSettings
from dynalign.learner.policy import load_policy
from tests.learner.test_policy import SIZES, folder, llama, saved
from tests.worlds.tiny_groups import VOCABULARY

__all__ = ["folder", "llama"]  # fixtures

WITHOUT_HEAD_SIZE = {name: value for name, value in SIZES.items() if name != "head_dim"}
UNPACKABLE = {
    "state from one sequence to the next": MambaConfig(
        vocab_size=VOCABULARY, hidden_size=16, state_size=4, num_hidden_layers=1, initializer_range=0.5
    ),
    "capped attention": Gemma2Config(**SIZES, attn_logit_softcapping=1.0),
    "a convolution over the row": Lfm2Config(**WITHOUT_HEAD_SIZE, layer_types=["conv", "full_attention"]),
    "attention and state": BambaConfig(
        **WITHOUT_HEAD_SIZE, attn_layer_indices=[1], mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8
    ),
    "another decoder": Llama4TextConfig(**SIZES, intermediate_size_mlp=48, num_local_experts=2),
    "another layout of the heads": AfmoeConfig(
        **SIZES, moe_intermediate_size=16, num_experts=2, num_experts_per_tok=1, num_dense_layers=1
    ),
}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("architecture", UNPACKABLE)
def test_an_architecture_that_cannot_be_packed_is_refused_in_one_line(
    architecture: str, precision: torch.dtype, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="model = .*(pack|row)") as raised:
        load_policy(saved(UNPACKABLE[architecture], tmp_path), LearnerSettings(), precision, 0)
    assert len(str(raised.value).splitlines()) == 1


def test_scaled_logits_are_noticed(tmp_path: Path) -> None:
    config = Gemma2Config(**SIZES, attn_logit_softcapping=None, final_logit_softcapping=0.5)
    with pytest.raises(UserError, match="differ from the model's own forward"):
        load_policy(saved(config, tmp_path), LearnerSettings(), torch.float32, 0)


def test_the_probe_leaves_weights_and_buffers_as_they_were(folder: Path) -> None:
    policy = load_policy(folder, LearnerSettings(), torch.bfloat16, 0)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    loaded = dict(policy.model.state_dict()) | dict(policy.model.named_buffers())
    for name, tensor in (dict(plain.state_dict()) | dict(plain.named_buffers())).items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_a_weight_that_is_no_number_is_named_as_such(llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="hold values that are not finite, the first in .*1.mlp.up_proj"):
        load_policy(tmp_path, LearnerSettings(), torch.float32, 0)
