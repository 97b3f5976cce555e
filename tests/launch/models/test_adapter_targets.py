"""Names of layers in `learner.lora.targets`, against those that the model's files have."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from dynalign.configs.load import load_run
from dynalign.launch.models.adapter_targets import linear_layers, target_mistakes
from tests.launch.test_preflight import paper_model

LAYERS = {
    "model.embed_tokens.weight": [320, 64],
    "model.layers.0.self_attn.q_proj.weight": [64, 64],
    "model.layers.0.self_attn.q_proj.bias": [64],
    "model.layers.0.self_attn.v_proj.weight": [32, 64],
    "model.layers.0.input_layernorm.weight": [64],
    "model.layers.1.mlp.up_proj.weight": [128, 64],
}
HEAD = {"lm_head.weight": [320, 64]}


def model(folder: Path, shapes: Mapping[str, list[int]], **config: object) -> Path:
    """A model folder whose weights have these names and shapes."""
    paper_model(folder)
    tensors = {}
    end = 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        tensors[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(tensors).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(end))
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(known | config))
    return folder


def mistakes(folder: Path, targets: str) -> list[str]:
    settings = load_run("quickstart", [f"model={folder}", f"learner.lora.targets={targets}"]).settings
    return [str(mistake) for mistake in target_mistakes(settings, folder)]


def test_linear_layers_are_the_matrices_that_are_multiplied_with(tmp_path: Path) -> None:
    assert linear_layers(model(tmp_path / "m", LAYERS | HEAD)) == ["lm_head", "q_proj", "up_proj", "v_proj"]


def test_a_misspelt_target_is_refused_with_the_names_that_the_model_has(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", LAYERS)
    assert mistakes(folder, "[q_prj, v_proj, embed_tokens]") == [
        "learner.lora.targets = 'q_prj': no linear layer of the model has this name; "
        "did you mean q_proj? This model has q_proj, up_proj, v_proj",
        "learner.lora.targets = 'embed_tokens': no linear layer of the model has this name; "
        "this model has q_proj, up_proj, v_proj",
    ]
    assert mistakes(folder, "[q_proj, v_proj]") == []


@pytest.mark.parametrize(("shapes", "tied"), [(LAYERS, False), (LAYERS, True), (LAYERS | HEAD, True)])
def test_a_head_that_is_the_embedding_carries_no_adapter(
    tmp_path: Path, shapes: Mapping[str, list[int]], tied: bool
) -> None:
    (mistake,) = mistakes(model(tmp_path / "m", shapes, tie_word_embeddings=tied), "[q_proj, lm_head]")
    assert mistake.startswith("learner.lora.targets = 'lm_head': its weight is that of the input embedding")


def test_a_head_of_its_own_carries_one(tmp_path: Path) -> None:
    assert mistakes(model(tmp_path / "m", LAYERS | HEAD), "[q_proj, lm_head]") == []


def test_files_that_cannot_be_read_are_refused_for_that_alone(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", LAYERS)
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs")
    assert mistakes(folder, "[q_prj]") == []
