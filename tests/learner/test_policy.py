"""The policy: a packed row is worth exactly its sequences one by one; adapters and names are those of the
libraries' own.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3MoeConfig,
)

from dynalign.configs.errors import UserError
from dynalign.configs.sections.learner import LearnerSettings, LoraSettings
from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.learner.loss import RowLoss
from dynalign.learner.policy import Policy, load_policy
from dynalign.learner.rows.rows import Row, build_rows, plan_rows
from tests.worlds.chat_models import in_mxfp4
from tests.worlds.tiny_groups import VOCABULARY, payloads, random_groups
from tests.worlds.tiny_models import settings, tiny_llama

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
CONFIGS = {
    "qwen3": Qwen3Config(**SIZES, use_sliding_window=True, sliding_window=6, max_window_layers=1),
    "qwen3-moe": Qwen3MoeConfig(**SIZES, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2),
    "gpt-oss": GptOssConfig(**SIZES, sliding_window=6, num_local_experts=2, num_experts_per_tok=1),
}


def saved(config: object, folder: Path) -> Path:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("sinks"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["tied", "untied", *CONFIGS])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp(request.param)
    if request.param in CONFIGS:
        return saved(CONFIGS[request.param], path)
    return tiny_llama(path, tied=request.param == "tied")


def tied(folder: Path) -> bool:
    return bool(json.loads((folder / "config.json").read_text()).get("tie_word_embeddings"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def rows_of(token_budget: int = 64) -> tuple[TrainingBatch, list[Row]]:
    batch = TrainingBatch.of(decode_groups(*payloads(random_groups(3))), "group")
    run = settings(Path("m"), token_budget=token_budget)
    return batch, build_rows(plan_rows(batch, range(3), run, 1), 0, 16)


def packed(policy: Policy, row: Row, *loss: RowLoss) -> tuple[Tensor, ...]:
    ids, positions, predicting, targets = map(
        torch.from_numpy, (row.input_ids_S, row.position_ids_S, row.predicting_T, row.targets_T)
    )
    outputs: tuple[Tensor, ...] = policy(ids, positions, row.layout, predicting, targets, row.chunks, *loss)
    return outputs


def one_by_one(model: PreTrainedModel, batch: TrainingBatch) -> Iterator[tuple[Tensor, Tensor]]:
    """(logprobs_T, entropy_T) of every candidate by the model's own forward, alone and unpadded."""
    for group in batch.groups_P:
        for tokens in group.completion_ids_G:
            ids = torch.tensor([[*group.context_ids.tolist(), *tokens.tolist()]])
            logprobs_TV = model(ids).logits[0, len(group.context_ids) - 1 : -1].log_softmax(-1)
            chosen_T = logprobs_TV.gather(-1, torch.tensor(tokens.tolist())[:, None])[:, 0]
            yield chosen_T, -(logprobs_TV.exp() * logprobs_TV).sum(-1)


def test_a_packed_row_equals_its_sequences_one_by_one(folder: Path) -> None:
    policy = load_policy(folder, LearnerSettings(logprob_chunk_tokens=16), torch.float32, 0)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    batch, rows = rows_of()
    assert len(rows) > 1
    assert max(len(layout) for row in rows for layout in row.layout) > 2
    expected = list(one_by_one(plain, batch))
    weights = torch.linspace(-1, 1, sum(batch.lengths_N)).split(batch.lengths_N)
    for row in rows:
        logprobs_T, entropy_T = packed(policy, row)
        assert torch.allclose(
            logprobs_T, torch.cat([expected[index][0] for index in row.candidates]), atol=1e-5
        )
        assert torch.allclose(
            entropy_T, torch.cat([expected[index][1] for index in row.candidates]), atol=1e-5
        )
        (logprobs_T * torch.cat([weights[index] for index in row.candidates])).sum().backward()
    sum((weight * chosen).sum() for weight, (chosen, _) in zip(weights, expected, strict=True)).backward()
    for (name, mine), theirs in zip(policy.model.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        assert torch.allclose(
            mine.grad, theirs.grad, rtol=1e-4, atol=1e-5 * float(theirs.grad.abs().max())
        ), name


def gradients_of(policy: Policy, row: Row, loss: RowLoss, handed_in: bool) -> list[Tensor]:
    policy.zero_grad()
    if handed_in:
        value, *_ = packed(policy, row, loss)
    else:
        value = loss(packed(policy, row)[0])
    value.backward()
    return [parameter.grad for parameter in policy.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(
    "lora",
    [None, LoraSettings(rank=4, targets=("q_proj", "o_proj")), LoraSettings(rank=4, targets=("lm_head",))],
)
def test_a_loss_that_is_handed_in_has_the_gradient_that_it_has_outside(
    folder: Path, lora: LoraSettings | None
) -> None:
    """Once in one pass over the logits, once by autograd; an adapter on the head takes the second way in any
    case.
    """
    if lora is not None and "lm_head" in lora.targets and tied(folder):
        pytest.skip("such an adapter is refused")
    policy = load_policy(folder, LearnerSettings(logprob_chunk_tokens=16, lora=lora), torch.float32, 0)
    row = rows_of()[1][0]
    generator = torch.Generator().manual_seed(4)
    advantages_T, weights_T = (
        torch.randn(len(row.targets_T), generator=generator),
        torch.rand(len(row.targets_T), generator=generator),
    )
    loss = RowLoss(advantages_T, weights_T, 0.2, 0.28)
    for mine, theirs in zip(
        *(gradients_of(policy, row, loss, handed_in) for handed_in in (True, False)), strict=True
    ):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_gradient_checkpointing_changes_no_gradient(llama: Path) -> None:
    gradients = []
    for recompute in (False, True):
        learner = LearnerSettings(logprob_chunk_tokens=16, gradient_checkpointing=recompute)
        policy = load_policy(llama, learner, torch.float32, 0)
        packed(policy, rows_of()[1][0])[0].sum().backward()
        gradients.append([parameter.grad for parameter in policy.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


def test_logits_exist_for_one_chunk_of_completion_tokens_at_a_time(llama: Path) -> None:
    policy = load_policy(llama, LearnerSettings(logprob_chunk_tokens=16), torch.float32, 0)
    seen: list[int] = []
    policy.model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[0]))
    row = rows_of(512)[1][0]
    packed(policy, row)[0].sum().backward()
    assert max(seen) == 16 < len(row.targets_T)
    assert sum(seen) == 2 * len(row.targets_T)  # forward, and again in backward; never a token of the prompt


def test_the_published_names_are_those_that_save_pretrained_writes(folder: Path) -> None:
    policy = load_policy(folder, LearnerSettings(), torch.float32, 0)
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        published = dict(policy.on_disk((weight.name, weight.value()) for weight in policy.weights()))
        assert published.keys() == set(file.keys())
        assert all(torch.equal(tensor, file.get_tensor(name)) for name, tensor in published.items())


LORA = LoraSettings(rank=4, alpha=6.0, targets=("q_proj", "down_proj"))


def adapted(folder: Path) -> Policy:
    """A policy whose adapters are no longer zero."""
    policy = load_policy(folder, LearnerSettings(lora=LORA, logprob_chunk_tokens=16), torch.float32, 5)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return policy


def test_merged_adapters_equal_pefts_own_merge(llama: Path) -> None:
    policy = adapted(llama)
    config = LoraConfig(r=LORA.rank, lora_alpha=6, target_modules=list(LORA.targets))
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32), config)
    copied = theirs.base_model.model.load_state_dict(policy.model.state_dict())
    assert not copied.missing_keys
    assert not copied.unexpected_keys
    merged = dict(theirs.merge_and_unload().named_parameters())
    for weight in policy.weights():
        assert torch.allclose(weight.value(), merged[weight.name], atol=1e-6), weight.name


def test_adapters_train_alone_and_begin_at_the_initial_policy(llama: Path) -> None:
    policy = load_policy(llama, LearnerSettings(lora=LORA), torch.float32, 5)
    assert all(("lora_" in name) == parameter.requires_grad for name, parameter in policy.named_parameters())
    row = rows_of()[1][0]
    base = packed(load_policy(llama, LearnerSettings(), torch.float32, 0), row)[0]
    assert torch.equal(packed(policy, row)[0], base)


def test_the_initial_policy_can_be_asked_while_the_adapters_are_trained(llama: Path) -> None:
    policy, row = adapted(llama), rows_of()[1][0]
    base = packed(load_policy(llama, LearnerSettings(), torch.float32, 0), row)[0]
    before = packed(policy, row)[0]
    with policy.initial():
        assert torch.allclose(packed(policy, row)[0], base, atol=1e-6)
    assert torch.equal(packed(policy, row)[0], before)
    assert not torch.allclose(before, base, atol=1e-2)


def test_adapters_are_drawn_from_the_seed(llama: Path) -> None:
    def drawn(seed: int) -> Tensor:
        policy = load_policy(llama, LearnerSettings(lora=LORA), torch.float32, seed)
        return torch.cat(
            [parameter.flatten() for name, parameter in policy.named_parameters() if "lora_A" in name]
        )

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_an_unknown_adapter_target_is_the_users_mistake(llama: Path) -> None:
    with pytest.raises(UserError, match="learner.lora.targets = 'c_attn'.*q_proj"):
        load_policy(llama, LearnerSettings(lora=LoraSettings(targets=("c_attn",))), torch.float32, 0)


def test_an_adapter_on_a_head_that_is_the_embedding_is_refused(llama: Path) -> None:
    lora = LoraSettings(rank=4, targets=("q_proj", "lm_head"))
    with pytest.raises(UserError, match="learner.lora.targets = 'lm_head': its weight is .*embedding"):
        load_policy(llama, LearnerSettings(lora=lora), torch.float32, 0)


def test_weights_that_hold_nan_are_refused_as_such(llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    model.save_pretrained(tmp_path)
    damaged = "hold values that are not finite, the first in model.layers.1.mlp.up_proj.weight"
    with pytest.raises(UserError, match=damaged):
        load_policy(tmp_path, LearnerSettings(), torch.float32, 0)


def test_tensors_whose_names_are_not_on_disk_are_refused(llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    model.config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no safetensors entry"):
        load_policy(tmp_path, LearnerSettings(), torch.float32, 0)


def test_files_that_the_index_does_not_name_say_nothing_of_the_model(llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert not (tmp_path / "model.safetensors").exists()
    (tmp_path / "consolidated.safetensors").write_bytes(b"cut off")
    save_file({"model.norm.weight": torch.ones(3)}, tmp_path / "optimizer.safetensors")
    load_policy(tmp_path, LearnerSettings(), torch.float32, 0)


FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])
MXFP4 = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
}


def released(folder: Path, quantization: dict[str, object]) -> tuple[Path, Tensor]:
    """A tiny gpt-oss as it is released, experts in MXFP4, and what the first expert layer's matrices are
    worth.
    """
    sizes = SIZES | {"hidden_size": 64, "intermediate_size": 32, "head_dim": 16}
    saved(GptOssConfig(**sizes, sliding_window=6, num_local_experts=2, num_experts_per_tok=1), folder)
    with safe_open(in_mxfp4(folder) / "model.safetensors", framework="pt") as file:
        blocks, scales = (
            file.get_tensor(f"model.layers.0.mlp.experts.gate_up_proj_{part}")
            for part in ("blocks", "scales")
        )
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config))
    digits = torch.stack([blocks & 15, blocks >> 4], -1).flatten(-2)  # the low half comes first
    values = FP4[digits.long()] * 2.0 ** (scales[..., None].float() - 127)
    return folder, values.flatten(-2).transpose(1, 2)


def test_experts_released_in_mxfp4_are_trained_around_in_bfloat16(tmp_path: Path) -> None:
    folder, worth = released(tmp_path, MXFP4)
    lora = LoraSettings(rank=4, targets=("q_proj", "o_proj"))
    policy = load_policy(folder, LearnerSettings(lora=lora), torch.bfloat16, 0, "adapter")
    loaded = dict(policy.model.named_parameters())["model.layers.0.mlp.experts.gate_up_proj"]
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(loaded.float(), worth)
    assert {weight.name.split(".")[-2] for weight in policy.adapter_weights()} == {"lora_A", "lora_B"}


def test_mxfp4_engines_take_no_whole_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no safetensors entry"):
        load_policy(released(tmp_path, MXFP4)[0], LearnerSettings(), torch.bfloat16, 0)


def test_other_quantized_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="quantized weights cannot be trained"):
        load_policy(
            released(tmp_path, {"quant_method": "gptq", "bits": 4})[0], LearnerSettings(), torch.bfloat16, 0
        )
