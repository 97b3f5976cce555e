"""The exported folder: what transformers loads from it is the trained policy, and everything else is the
initial model's.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from dynalign.configs.sections.learner import LearnerSettings, LoraSettings
from dynalign.learner.export import export_model
from dynalign.learner.policy import load_policy
from dynalign.learner.weights import read_version
from tests.learner.test_policy import MXFP4, released
from tests.worlds.one_rank import Learner
from tests.worlds.tiny_groups import payloads, random_groups
from tests.worlds.tiny_models import settings, tiny_llama

IDS = torch.tensor([[3, 4, 5, 6, 7, 8]])


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def llama(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), tied=request.param)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)], ids=["full", "adapters"])
def test_an_exported_policy_loads_with_identical_logits(
    llama: Path, tmp_path: Path, lora: LoraSettings | None
) -> None:
    learner = Learner(settings(llama, lora=lora), llama, 0, 1)
    for step in (1, 2):
        learner.prepare(step, *payloads(random_groups(2)))
        learner.run(step)
    learner.export(tmp_path)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert exported.dtype == torch.bfloat16
    version = learner.weights(1)
    assert version is not None
    state = {name: tensor.to(torch.bfloat16) for name, tensor in read_version(*version)}
    published = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16)
    published.load_state_dict(state, strict=False)
    published.tie_weights()
    initial = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16)
    assert torch.equal(exported(IDS).logits, published(IDS).logits)
    assert not torch.allclose(exported(IDS).logits, initial(IDS).logits, atol=1e-2)


def test_tokenizer_template_and_generation_settings_come_along(llama: Path, tmp_path: Path) -> None:
    export_model([("w", torch.ones(2))], llama, tmp_path)
    kept = {file.name for file in llama.iterdir()}
    assert {file.name for file in tmp_path.iterdir()} == kept
    messages = [{"role": "user", "content": "w5 w6"}]
    chats = [
        AutoTokenizer.from_pretrained(folder).apply_chat_template(messages)["input_ids"]
        for folder in (llama, tmp_path)
    ]
    assert chats[0] == chats[1] == [5, 6]
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"


def test_additional_chat_templates_come_along(llama: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(llama, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = {"default": "{{ 1 }}", "rag": "{{ 2 }}", "tool_use": "{{ 3 }}"}
    tokenizer.save_pretrained(model)
    export_model([("w", torch.ones(2))], model, tmp_path / "hf")
    assert AutoTokenizer.from_pretrained(tmp_path / "hf").chat_template == tokenizer.chat_template


def ends(folder: Path) -> object:
    return GenerationConfig.from_pretrained(folder).eos_token_id


@pytest.mark.parametrize(
    ("generation", "expected"),
    [(None, [95, 7]), ({"eos_token_id": 5, "top_p": 0.9}, [5, 7]), ({"eos_token_id": [5, 7]}, [5, 7])],
)
def test_a_token_that_ended_completions_in_training_ends_them_in_the_exported_model(
    llama: Path, tmp_path: Path, generation: dict[str, object] | None, expected: list[int]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(llama, model)
    config = json.loads((model / "config.json").read_text()) | {"eos_token_id": 95, "bos_token_id": 1}
    (model / "config.json").write_text(json.dumps(config))
    (model / "generation_config.json").unlink(missing_ok=True)
    if generation is not None:
        (model / "generation_config.json").write_text(json.dumps(generation))
    before = GenerationConfig.from_pretrained(model).to_dict() if generation else None
    export_model([("w", torch.ones(2))], model, tmp_path / "plain")
    assert (tmp_path / "plain" / "generation_config.json").exists() == (generation is not None)
    export_model([("w", torch.ones(2))], model, tmp_path / "hf", stop_ids=(7,))
    assert ends(tmp_path / "hf") == expected
    after = GenerationConfig.from_pretrained(tmp_path / "hf").to_dict()
    assert after["bos_token_id"] == 1
    assert before is None or after["top_p"] == before["top_p"]


def test_a_large_model_is_written_in_shards(llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama)
    tied = model.config.tie_word_embeddings
    tensors = [
        (name, tensor)
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    ]
    export_model(tensors, llama, tmp_path, shard_bytes=20_000)
    shards = sorted(file.name for file in tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor.to(torch.bfloat16)) for name, tensor in tensors)


@torch.no_grad()
def test_adapters_on_a_release_in_mxfp4_are_exported_as_one_plain_model(tmp_path: Path) -> None:
    folder, _ = released(tmp_path / "released", MXFP4)
    lora = LearnerSettings(lora=LoraSettings(rank=4, targets=("q_proj", "k_proj", "v_proj", "o_proj")))
    initial, trained = (load_policy(folder, lora, torch.bfloat16, 0, "adapter").eval() for _ in range(2))
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    export_model(
        trained.on_disk((weight.name, weight.value()) for weight in trained.weights()),
        folder,
        tmp_path / "hf",
    )
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", attn_implementation="eager")
    assert {parameter.dtype for parameter in exported.parameters()} == {torch.bfloat16}
    for policy in (initial, trained):
        policy.model.set_attn_implementation("eager")
    before, mine, theirs = (model(IDS).logits.float() for model in (initial.model, trained.model, exported))
    assert (mine - theirs).abs().max() < 0.1 * (mine - before).abs().max()
