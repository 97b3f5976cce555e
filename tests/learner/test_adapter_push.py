"""What a learner publishes when only its adapters travel: peft's own tensors, and nothing else."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from dynalign.configs.errors import UserError
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.learner import LoraSettings
from dynalign.configs.sections.weights import WeightsSettings
from dynalign.learner.weights import read_version
from dynalign.rollout.weights.version import AdapterEntry, travelling_adapter
from dynalign.rollout.weights.version_file import tensors_in, untrained_adapter, write_adapter
from tests.worlds.one_rank import Learner
from tests.worlds.tiny_groups import payloads, random_groups
from tests.worlds.tiny_models import settings, tiny_llama

LORA = LoraSettings(rank=4, alpha=10.0, targets=("q_proj", "down_proj"))
ENTRY = AdapterEntry(4, 10.0, ("q_proj", "down_proj"))
IDS = torch.tensor([[3, 4, 5, 6, 7, 8]])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def run_of(llama: Path, content: str = "adapter", **learner: object) -> RunSettings:
    return settings(llama, lora=LORA, **learner).model_copy(
        update={"weights": WeightsSettings.model_validate({"content": content})}
    )


@pytest.mark.parametrize("stage", [1, 3])
def test_the_released_model_with_the_pushed_adapter_is_the_exported_model(
    llama: Path, tmp_path: Path, stage: int
) -> None:
    learner = Learner(run_of(llama, zero_stage=stage, learning_rate=0.1), llama, 0, 1)
    for step in (1, 2):
        learner.prepare(step, *payloads(random_groups(2)))
        learner.run(step)
    manifest, buckets = learner.weights(1) or pytest.fail("rank 0 publishes")
    assert manifest.adapter == ENTRY == travelling_adapter(run_of(llama))
    file = tmp_path / "version"
    file.write_bytes(b"".join(bucket.tobytes() for bucket in buckets))
    tensors = {name: tensor.clone() for name, tensor in tensors_in(file, manifest)}
    assert all("lora_" in name for name in tensors)
    write_adapter(tmp_path, ENTRY, tensors)
    plain = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    before = plain(IDS).logits
    pushed = PeftModel.from_pretrained(plain, tmp_path)(IDS).logits
    learner.export(tmp_path / "hf")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)(IDS).logits
    rounding = (pushed - exported).abs().max()  # the exported folder is bfloat16
    assert rounding < 0.05
    assert (pushed - before).abs().max() > 10 * rounding


def test_a_resumed_learner_pushes_the_adapter_that_was_saved(llama: Path, tmp_path: Path) -> None:
    learner = Learner(run_of(llama), llama, 0, 1)
    learner.prepare(1, *payloads(random_groups(2)))
    learner.run(1)
    learner.save(tmp_path)
    resumed = Learner(run_of(llama), llama, 0, 1)
    resumed.load(tmp_path)
    (first, saved), (second, loaded) = (
        each.weights(1) or pytest.fail("rank 0 publishes") for each in (learner, resumed)
    )
    assert first == second
    assert all(
        torch.equal(tensor, dict(read_version(second, loaded))[name])
        for name, tensor in read_version(first, saved)
    )


def test_the_untrained_adapter_names_the_layers_of_the_folder_and_changes_nothing(
    llama: Path, tmp_path: Path
) -> None:
    tensors = untrained_adapter(llama, ENTRY)
    write_adapter(tmp_path, ENTRY, tensors)
    plain = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    before = plain(IDS).logits
    adapted = PeftModel.from_pretrained(plain, tmp_path)
    assert torch.equal(adapted(IDS).logits, before)
    learner = Learner(run_of(llama), llama, 0, 1)
    manifest, _ = learner.weights(1) or pytest.fail("rank 0 publishes")
    assert {entry.name: entry.shape for entry in manifest.tensors} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }


def test_an_adapter_for_layers_that_the_model_lacks_is_the_users_mistake(llama: Path) -> None:
    with pytest.raises(UserError, match=r"learner\.lora\.targets"):
        untrained_adapter(llama, AdapterEntry(4, 8.0, ("c_attn",)))
