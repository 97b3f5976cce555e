"""What is wrong with a model's folder, by the name of the file, and where the hub's models are found."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.launch.models.architecture import causal_models
from dynalign.launch.models.folder import download_cause, folder_mistakes, model_folder
from dynalign.launch.models.shape import read_shape
from dynalign.learner.weight_files import INDEX, SINGLE

CONFIG = {
    "model_type": "llama",
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "hidden_size": 4,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "vocab_size": 10,
    "max_position_embeddings": 1024,
}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
TENSORS = ("model.embed_tokens.weight", "model.norm.weight")


def save(file: Path, *names: str) -> None:
    """A safetensors file with tensors of 10 rows of 4 numbers, 80 bytes each."""
    offsets = [[80 * index, 80 * index + 80] for index in range(len(names))]
    declared = {
        name: {"dtype": "BF16", "shape": [10, 4], "data_offsets": each}
        for name, each in zip(names, offsets, strict=True)
    }
    header = json.dumps({"__metadata__": {"format": "pt"}} | declared).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(80 * len(names)))


def index(folder: Path, *shards: str) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": dict(zip(TENSORS, shards, strict=True))}))


def sharded(folder: Path) -> None:
    (folder / SINGLE).unlink()
    for shard, name in zip(SHARDS, TENSORS, strict=True):
        save(folder / shard, name)
    index(folder, *SHARDS)


def model(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    added = [{"id": 9, "content": "<|end|>"}]
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": added, "model": {}}))
    (folder / "chat_template.jinja").write_text("{{ messages }}<|end|>")
    save(folder / SINGLE, *TENSORS)
    return folder


def test_a_single_file_and_shards_are_in_order_and_counted_once(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    for change in (lambda: None, lambda: sharded(folder), lambda: save(folder / SINGLE, *TENSORS)):
        change()
        for stray in ("consolidated.safetensors", "optimizer.safetensors"):
            save(folder / stray, "w", "v", "u")
        assert folder_mistakes(folder) == []
        assert read_shape(folder).parameters == 80


def lfs(file: str) -> Callable[[Path], object]:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4\nsize 191128\n"
    return lambda folder: (folder / file).write_text(pointer)


def cut(file: str, size_bytes: int) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size_bytes])


def without_a_shard(folder: Path) -> None:
    sharded(folder)
    (folder / SHARDS[1]).unlink()


def with_a_cut_shard(folder: Path) -> None:
    sharded(folder)
    cut(SHARDS[0], 150)(folder)


def with_a_shard_that_lacks_a_tensor(folder: Path) -> None:
    sharded(folder)
    index(folder, SHARDS[0], SHARDS[0])


def with_another_model_beside_shards(folder: Path) -> None:
    sharded(folder)
    save(folder / SINGLE, "another")


def with_a_shard_elsewhere(folder: Path) -> None:
    sharded(folder)
    index(folder, SHARDS[0], f"../{SHARDS[1]}")


def with_a_dangling_link(folder: Path) -> None:
    (folder / SINGLE).unlink()
    sharded_link = folder / SINGLE
    sharded_link.symlink_to(folder / "absent-blob")
    index(folder, *SHARDS)


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (lfs(SINGLE), f"{SINGLE} is a Git LFS pointer"),
        (lfs("tokenizer.json"), "tokenizer.json is a Git LFS pointer"),
        (cut(SINGLE, 250), rf"{SINGLE} is cut off or damaged: it has 250 bytes, its header says \d+"),
        (cut(SINGLE, 50), f"{SINGLE} is cut off within its header"),
        (cut(SINGLE, 4), f"{SINGLE} is no safetensors file"),
        (cut(SINGLE, 0), f"{SINGLE} is empty"),
        (cut("tokenizer.json", 30), "tokenizer.json is cut off"),
        (cut("chat_template.jinja", 0), "chat_template.jinja is empty"),
        (lambda folder: (folder / SINGLE).write_text("<html>not found</html>"), "is no safetensors file"),
        (
            lambda folder: (folder / SINGLE).rename(folder / "consolidated.safetensors"),
            "no model.safetensors",
        ),
        (without_a_shard, f"{SHARDS[1]} is missing"),
        (with_a_cut_shard, f"{SHARDS[0]} is cut off"),
        (with_a_shard_that_lacks_a_tensor, f"{SHARDS[0]} lacks 1 tensors of {INDEX}"),
        (with_another_model_beside_shards, f"{SINGLE} holds other tensors than {INDEX} names"),
        (with_a_shard_elsewhere, f"{INDEX} is no index"),
        (with_a_dangling_link, f"{SHARDS[0]} is missing"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "the adapter's base model"),
        (lambda folder: model(folder, auto_map={"AutoConfig": "x.X"}, model_type="x"), "is never run"),
        (lambda folder: model(folder, vocab_size=9), "has 10 rows, and vocab_size in config.json is 9"),
    ],
)
def test_damage_is_refused_by_the_file_s_name(
    tmp_path: Path, damage: Callable[[Path], object], rule: str
) -> None:
    folder = model(tmp_path / "m")
    damage(folder)
    mistakes = folder_mistakes(folder)
    with pytest.raises(UserError, match=rule):
        raise UserError(mistakes)
    assert all("\n" not in str(mistake) for mistake in mistakes)


def test_a_token_of_the_template_without_a_row_is_refused_and_an_unused_one_is_not(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    added = [{"id": 10, "content": "<image>"}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": {}}))
    assert folder_mistakes(folder) == []
    (folder / "chat_template.jinja").write_text("{{ messages }}<image>")
    (mistake,) = folder_mistakes(folder)
    assert "has 10 rows, and its chat template writes the token '<image>', whose id is 10" in mistake.rule


@pytest.mark.parametrize(
    ("rope", "positions"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 8.0}}, 8192),
        ({"rope_parameters": {"rope_type": "linear", "factor": 8.0}}, 8192),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}}, 2048),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, 2048),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, 1024),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 1024),
        ({"rope_scaling": None}, 1024),
        ({"model_type": "gemma3_text", "rope_scaling": {"type": "linear", "factor": 8.0}}, 1024),
    ],
)
def test_contexts_end_where_vllm_ends_them(tmp_path: Path, rope: dict[str, object], positions: int) -> None:
    assert read_shape(model(tmp_path / "m", **rope)).positions == positions


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and home, without the hub's variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def snapshot(hub: Path) -> Path:
    repository = hub / "models--acme--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    return model(repository / "snapshots" / "abc")


@pytest.mark.parametrize(
    ("variables", "hub"),
    [
        ({}, ".cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "~/x"}, "x/huggingface/hub"),
        ({"HF_HOME": "~/hf"}, "hf/hub"),
        ({"HF_HOME": "$HOME/hf"}, "hf/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "~/older"}, "older"),
        ({"HUGGINGFACE_HUB_CACHE": "~/older", "HF_HUB_CACHE": "~/newer"}, "newer"),
    ],
)
def test_the_hub_s_cache_is_found_by_the_hub_s_own_rules(
    here: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], hub: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert model_folder("acme/tiny") == "acme/tiny"
    assert model_folder("acme/tiny") != snapshot(here / hub)
    assert model_folder("acme/tiny") == here / hub / "models--acme--tiny" / "snapshots" / "abc"


def test_a_download_that_broke_off_is_downloaded_again_and_check_says_so(here: Path) -> None:
    assert download_cause("acme/tiny") == "is downloaded when the run starts"
    without_a_shard(snapshot(here / ".cache/huggingface/hub"))
    assert model_folder("acme/tiny") == "acme/tiny"
    said = (
        f"is on this machine in part ({SHARDS[1]} is missing), and the rest is downloaded when the run starts"
    )
    assert download_cause("acme/tiny") == said


def test_a_path_without_its_folder_is_not_taken_for_a_hub_id(here: Path) -> None:
    (here / "m" / "base").mkdir(parents=True)
    with pytest.raises(UserError, match=r"a folder m here, and no bsae in it; did you mean m/base\?"):
        model_folder("m/bsae")
    (here / "Qwen").mkdir()
    assert model_folder("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"  # named by a shipped run


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"model_type": "foo", "architectures": ["FooForCausalLM"]},
            "no causal language model of its model_type 'foo'",
        ),
        (
            {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
            "BertForMaskedLM has no head that generates",
        ),
        ({"architectures": ["LlamaModel"]}, "LlamaModel has no head that generates text"),
    ],
)
def test_an_architecture_that_generates_no_text_is_one_line(
    tmp_path: Path, config: dict[str, object], said: str
) -> None:
    (mistake,) = folder_mistakes(model(tmp_path / "m", **config))
    assert said in mistake.rule


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["LlamaForCausalLM"]},
        {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
        {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]},
        {"model_type": "gpt_oss"},
        {"architectures": None},
        {"model_type": None},
    ],
)
def test_an_architecture_that_transformers_knows_passes(tmp_path: Path, config: dict[str, object]) -> None:
    assert folder_mistakes(model(tmp_path / "m", **config)) == []


def test_the_table_of_architectures_is_found_in_the_installed_transformers() -> None:
    known = causal_models()
    assert known["llama"] == "LlamaForCausalLM"
    assert len(known) > 100


def test_a_link_to_weights_that_are_gone_is_one_line(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    (folder / SINGLE).unlink()
    (folder / SINGLE).symlink_to("nowhere")
    (mistake,) = folder_mistakes(folder)
    assert mistake.rule == f"{SINGLE} is missing"
