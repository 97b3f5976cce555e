"""What is refused before anything is started: from files and figures, then with tokenizer and user code."""

import json
import pickle
import shutil
import struct
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import pytest

from dynalign.configs.errors import RecordError, UserError
from dynalign.configs.load import LoadedRun, load_run
from dynalign.launch.commands.check import check_lines, context_lines
from dynalign.launch.models.folder import folder_mistakes, model_folder
from dynalign.launch.plan.machine import this_machine
from dynalign.launch.preflight import check, preflight, run_texts
from dynalign.launch.resume.open_run import open_run
from dynalign.rollout.judges import value_texts
from dynalign.rollout.prompts import load_prompts
from dynalign.run_folder import layout
from dynalign.run_folder.checkpoint import fixed_settings, seal
from dynalign.run_folder.content import model_hashes, values_hashes
from dynalign.run_folder.layout import aside_folder

CONFIG = {
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "vocab_size": 320,
    "max_position_embeddings": 8192,
}


def paper_model(folder: Path, config: dict[str, object] | None = None) -> Path:
    """A model folder whose files are there and hold just enough to be looked at."""
    folder.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"w": {"dtype": "BF16", "shape": [1000], "data_offsets": [0, 2000]}}).encode()
    (folder / "config.json").write_text(json.dumps(config or CONFIG))
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(2000))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, a cache and no cluster of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("RAY_ADDRESS", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)


def run(*overrides: str, model: Path | None = None) -> LoadedRun:
    return load_run("quickstart", [f"model={model or paper_model(Path('model').absolute())}", *overrides])


def places(loaded: LoadedRun) -> Sequence[str]:
    return [mistake.place for mistake in check(open_run(loaded)).mistakes]


def test_a_run_in_order_gets_its_plan_and_nothing_is_written(tmp_path: Path) -> None:
    checked = check(open_run(run()))
    assert checked.plan is not None
    assert checked.mistakes == []
    assert checked.plan.shape.parameters == 1000
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_all_that_is_wrong_is_refused_at_once(tmp_path: Path) -> None:
    model = paper_model(tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\nnot json\n')
    (tmp_path / "runs").touch()
    overrides = [
        "prompts.source=prompts.jsonl",
        "judge.values=absent",
        "rollout.kv_cache_gib=0.0001",
        "placement.device=gpu",
    ]
    found = places(run(*overrides, model=model))
    assert found == [
        "prompts.jsonl:2",
        "judge.values",
        "runs",
        f"model folder {model}",
        "rollout.kv_cache_gib",
        "placement.device",
    ]


def test_a_model_that_was_not_fetched_is_told_the_command() -> None:
    (mistake,) = check(open_run(load_run("quickstart"))).mistakes
    assert mistake.remedy == "run `dynalign model fetch smollm2-135m-instruct`"


def test_a_fetched_model_is_found_in_the_cache(tmp_path: Path) -> None:
    fetched = paper_model(tmp_path / "cache" / "dynalign" / "models" / "smollm2-135m-instruct")
    assert model_folder("smollm2-135m-instruct") == fetched


def test_a_model_is_a_folder_or_a_hub_id_or_refused(tmp_path: Path) -> None:
    assert model_folder("owner/name-1.5B") == "owner/name-1.5B"
    paper_model(tmp_path / "owner" / "name")
    assert model_folder("owner/name") == tmp_path / "owner" / "name"
    for wrong in ("smollm2-135m", "/absent/folder", "./absent", "a/b/c", "-x/y"):
        with pytest.raises(UserError):
            model_folder(wrong)
    with pytest.raises(UserError, match="did you mean smollm2-135m-instruct"):
        model_folder("smollm2-135m-instrct")


def test_a_downloaded_hub_model_is_found_in_the_hub_s_cache(tmp_path: Path) -> None:
    repository = tmp_path / "cache" / "huggingface" / "hub" / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc\n")
    assert model_folder("owner/name") == "owner/name"
    assert model_folder("owner/name") != paper_model(repository / "snapshots" / "abc")
    assert model_folder("owner/name") == repository / "snapshots" / "abc"


def test_a_hub_model_has_no_plan_until_it_is_here() -> None:
    loaded = load_run("quickstart", ["model=owner/name"])
    assert check(open_run(loaded)).plan is None
    assert "no placement plan: owner/name is downloaded when the run starts" in check_lines(loaded)


def test_a_shipped_run_s_model_has_a_plan_before_it_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU here the plan is printed, and then refused.

    For a cluster that is not asked yet, only this disk can be too small.
    """
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    small = ["runs=runs", "checkpoint.keep_last=1", "experience.keep_steps=0"]
    lines = check_lines(load_run("paper", small))
    printed = [next(lines) for _ in range(15)]
    assert any("as released (mxfp4)" in line for line in printed)
    with pytest.raises(UserError, match="take 1 GPU, and this machine has 0"):
        list(lines)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    for name in ("single-gpu", "cluster", "paper"):
        checked = check(open_run(load_run(name, small)))
        assert checked.plan is not None
        assert [mistake for mistake in checked.mistakes if mistake.place != str(tmp_path)] == []


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no *.safetensors"),
        ("tokenizer.json", "no tokenizer"),
        ("chat_template.jinja", "no chat template"),
    ],
)
def test_each_part_of_a_model_folder_is_missed_by_name(tmp_path: Path, gone: str, words: str) -> None:
    folder = paper_model(tmp_path / "model")
    (folder / gone).unlink()
    (mistake,) = folder_mistakes(folder)
    assert words in mistake.rule


def test_a_template_in_the_tokenizer_s_config_will_do(tmp_path: Path) -> None:
    folder = paper_model(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert folder_mistakes(folder) == []


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    (mistake,) = folder_mistakes(
        paper_model(tmp_path / "model", CONFIG | {"quantization_config": {"quant_method": "awq"}})
    )
    assert "quantized weights (awq), which cannot be trained" in mistake.rule


def test_a_release_in_mxfp4_is_trained_by_adapters_that_are_pushed_alone(tmp_path: Path) -> None:
    released = paper_model(tmp_path / "model", CONFIG | {"quantization_config": {"quant_method": "mxfp4"}})
    on_cpu = (
        [] if this_machine(with_gpus=False).amx else ["placement.device"]
    )  # tests/launch/plan/test_plan.py has both
    assert places(run(model=released)) == ["weights.content", *on_cpu]
    assert "weights.content" not in places(run("learner.lora={}", "weights.content=adapter", model=released))


def test_a_gpu_run_without_gpus_is_refused_unless_a_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert places(run("placement.device=gpu")) == ["placement.device"]
    assert places(load_run("single-gpu", ["model=owner/name"])) == ["placement.device"]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert places(run("placement.device=gpu")) == []


def test_prompts_without_a_held_out_split_cannot_be_evaluated(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    assert places(run("prompts.source=prompts.jsonl")) == ["heldout.prompts"]
    assert places(run("prompts.source=prompts.jsonl", "heldout.prompts=0")) == []


def test_an_address_of_another_machine_is_refused_where_the_run_starts_its_own_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert places(run("metrics.host=192.0.2.1")) == ["metrics.host"]
    assert places(run("metrics.host=192.0.2.1", "metrics.port=null")) == []
    assert places(run("metrics.host=0.0.0.0")) == []
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert places(run("metrics.host=192.0.2.1")) == []


def test_a_disk_that_cannot_hold_the_checkpoints_is_refused_with_both_figures(tmp_path: Path) -> None:
    model = paper_model(tmp_path / "model", CONFIG | {"vocab_size": 10**12})
    (model / "model.safetensors").write_bytes(b"")  # counted from the config: 1.28e14 parameters
    assert str(tmp_path) in places(run(model=model))


def with_checkpoint(loaded: LoadedRun, step: int, content: Mapping[str, str] | None = None) -> None:
    folder = open_run(loaded).folder.path / "checkpoints"
    aside_folder(folder, step, 1).mkdir(parents=True)
    fixed = fixed_settings(loaded.settings, load_prompts("builtin").content_hash, content)
    seal(folder, loaded.settings.name, 1, step, (0,), fixed)


def test_what_may_not_change_when_a_run_is_continued_is_refused_by_name() -> None:
    with_checkpoint(run(), step=4)
    assert places(run()) == []
    assert places(run("steps=20", "learner.learning_rate=1e-6")) == []
    assert places(run("seed=1", "rollout.group_size=4", "steps=3")) == ["seed", "rollout.group_size", "steps"]


def test_changed_weights_template_or_rubric_are_refused_and_another_spelling_is_not(tmp_path: Path) -> None:
    model = paper_model(tmp_path / "model")
    values = tmp_path / "values"
    shutil.copytree(Path(value_texts.__file__).parents[1] / "values", values)
    settings = [f"judge.values={values}"]
    texts = run_texts(run(*settings).settings)
    hashes = model_hashes(model) | values_hashes(texts.definition_hash, texts.rubric_hash)
    with_checkpoint(run(*settings), 4, hashes)
    (tmp_path / "link").symlink_to(model)
    for spelling in ("model", f"{model}/", "link"):
        assert places(run(f"model={spelling}", "judge.values=values")) == []
    (model / "chat_template.jinja").write_text("{{ other }}")
    assert places(run(*settings, model=model)) == ["model"]
    paper_model(model)
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[:-1] + b"x")
    assert places(run(*settings, model=model)) == ["model"]
    paper_model(model)
    with (values / "rubric_unified.txt").open("a") as rubric:
        rubric.write("and more")
    assert places(run(*settings, model=model)) == ["judge.values"]


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.worlds.chat_models import tiny_chat_model

    return tiny_chat_model(tmp_path_factory.mktemp("chat"))


def test_a_prepared_run_has_all_that_it_starts_from(chat_model: Path) -> None:
    loaded = run("prompts.max_tokens=2048", "learner.token_budget=4096", model=chat_model)
    with_checkpoint(loaded, step=4)
    prepared = preflight(open_run(loaded))
    assert prepared.model_folder == chat_model
    assert (len(prepared.prompts.train), prepared.prompts.content_hash) == (
        224,
        load_prompts("builtin").content_hash,
    )
    assert prepared.checkpoint is not None
    assert prepared.checkpoint.step == 4
    assert {"model: weights", "judge.values: rubric"} < prepared.content.keys()
    assert set(prepared.cores) == {"rollout-0", "learner-0"}
    assert prepared.plan.context_tokens > 2048


def test_values_in_the_home_folder_are_read_once_for_all_workers(
    chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(str(files("dynalign.rollout").joinpath("values")), tmp_path / "values")
    (tmp_path / "values" / "generation_system.txt").write_text("Be of use.")
    long = ["prompts.max_tokens=2048", "learner.token_budget=4096"]
    prepared = preflight(open_run(run(*long, "judge.values=~/values", model=chat_model)))
    assert prepared.texts.generation_system == "Be of use."
    assert pickle.loads(pickle.dumps(prepared.texts)) == prepared.texts


def test_preflight_refuses_long_prompts_and_an_absent_function_with_the_rest(chat_model: Path) -> None:
    loaded = run(
        "prompts.max_tokens=512",
        "judge.kind=function",
        "judge.function=absent_module:reward",
        "runs=model",
        model=chat_model,
    )
    Path("model").touch()
    with pytest.raises(UserError) as caught:
        preflight(open_run(loaded))
    mistakes = caught.value.mistakes
    assert [mistake.place for mistake in mistakes[:2]] == ["runs", "judge.function"]
    assert len([mistake for mistake in mistakes if mistake.place.startswith("prompt ")]) == 20
    assert mistakes[-1].rule == "252 more prompts are longer than prompts.max_tokens=512"


def test_a_function_in_the_user_s_folder_is_found(
    chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_reward_of_this_test.py").write_text("def reward(prompt, completion):\n    return 1.0\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    long = ["prompts.max_tokens=2048", "learner.token_budget=4096"]
    function = "judge.function=own_reward_of_this_test:reward"
    loaded = run(*long, "judge.kind=function", function, model=chat_model)
    assert preflight(open_run(loaded)).plan.context_tokens == 2048 + 48


def test_what_is_wrong_with_a_folder_is_said_once(tmp_path: Path) -> None:
    awq = paper_model(tmp_path / "awq", CONFIG | {"quantization_config": {"quant_method": "awq"}})
    assert places(run(model=awq)) == [f"model folder {awq}"]
    gone = paper_model(tmp_path / "gone")
    (gone / "model.safetensors").unlink()
    (gone / "model.safetensors").symlink_to("nowhere")
    assert places(run(model=gone)) == [f"model folder {gone}"]
    heads = paper_model(tmp_path / "heads", CONFIG | {"num_attention_heads": 0})
    assert places(run(model=heads)) == [f"model folder {heads}"]


def test_a_damaged_owner_of_the_run_folder_is_refused_by_check_too() -> None:
    folder = open_run(run()).folder.path
    folder.mkdir(parents=True)
    (folder / layout.OWNER).write_text("{")
    with pytest.raises(RecordError, match=f"{layout.OWNER} is damaged .*; remove it"):
        check(open_run(run()))


def test_both_contexts_of_a_prompt_are_shown(chat_model: Path) -> None:
    sampling, learning = "\n".join(context_lines(run(model=chat_model))).split("--- learning context")
    assert "Collective Agency" in sampling
    assert "Collective Agency" not in learning
    assert "You help." in learning
    assert "You help." not in sampling
    assert learning.endswith(
        "no thinking is taken off (neither the chat template nor the tokenizer has a tag for it) ---"
    )
