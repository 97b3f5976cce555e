"""What the stages are made of: the dry run of the cheapest one, memory beside the plan, made data."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dynalign.benchmarks.gpu_check import attention
from dynalign.benchmarks.gpu_check.__main__ import gpu_check
from dynalign.benchmarks.gpu_check.actor_memory import ActorMemory, beside_the_plan, numbers, own_bytes
from dynalign.benchmarks.gpu_check.attention import ROW_TOKENS, made_of, made_row
from dynalign.benchmarks.gpu_check.facts import card_facts
from dynalign.benchmarks.gpu_check.made_groups import made_groups
from dynalign.benchmarks.gpu_check.outcomes import read, read_figures
from dynalign.benchmarks.gpu_check.random_models import SHAPES, TINY, Size, made_tokenizer, write_model
from dynalign.benchmarks.gpu_check.ratios import memory_folder
from dynalign.benchmarks.gpu_check.reference import loaded, logprobs_T, mismatch_nats
from dynalign.benchmarks.gpu_check.runs import SPLIT, overrides, settings_of
from dynalign.benchmarks.gpu_check.site import Site, visible_gpus
from dynalign.benchmarks.gpu_check.step_figures import medians
from dynalign.benchmarks.memory import MIB
from dynalign.configs.errors import UserError
from dynalign.launch.models.known_models import known_shape
from dynalign.launch.models.shape import read_shape, shape_of
from dynalign.launch.plan.memory import CUDA_CONTEXT_BYTES, GB, Part
from dynalign.launch.plan.nodes import Cluster, Node
from dynalign.launch.plan.plan import PlacementPlan, plan
from dynalign.launch.plan.refusals import refusals
from dynalign.learner.batch import decode_groups
from dynalign.learner.rows.varlen import VarlenKernel
from dynalign.learner.rows.varlen_probe import NAMES
from dynalign.rollout.contexts import DIGITS
from dynalign.rollout.engine.base import EngineResult
from dynalign.rollout.records import VersionSpan
from dynalign.run_folder.metric_names import METRIC_NAMES

CARD = Cluster((Node("this machine", tuple(range(16)), 10**12, gpus=(80 * 10**9,)),), started_here=True)
STAGED = Part("version staged", "", 3 * 10**9, "gpu")
CUDA = Part("CUDA", "", 2 * CUDA_CONTEXT_BYTES, "gpu")
WEIGHTS = Part("weights", "", 4 * 10**9, "gpu")


def site(folder: Path, device: str = "cpu") -> Site:
    return Site("a-stage", "gpu" if device == "gpu" else "cpu", str(folder), str(folder), None, 0.0)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with the config of the dry run's model, and nothing else."""
    config = {"model_type": "qwen3", "tie_word_embeddings": True} | TINY
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def plan_of(*more: str, size: Size = "1.7B") -> PlacementPlan:
    shape = shape_of({"model_type": "qwen3", "tie_word_embeddings": True} | SHAPES[size])
    return plan(settings_of((f"model=Qwen/Qwen3-{size}", *more)), shape, CARD, 1024)


# -- the cheapest stage ----------------------------------------------------------------------------


def test_a_dry_run_of_the_facts_is_kept_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--device", "cpu", "--only", "facts", "--out", str(tmp_path)]
    assert gpu_check.main(arguments, standalone_mode=False) == 0
    (facts,) = read(tmp_path / "results.jsonl")
    assert (facts.stage, facts.status, facts.origin.device) == ("facts", "passed", "cpu")
    assert {"product_tflops", "copy_from_host_gb_per_s", "version_torch"} <= facts.figures.keys()
    assert "facts             passed" in capsys.readouterr().out


def test_wrong_arguments_are_named_together_and_nothing_is_started(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    arguments = ["--device", "cpu", "--out", str(tmp_path / "file"), "--model", str(tmp_path)]
    with pytest.raises(UserError) as refused:
        gpu_check.main(arguments, standalone_mode=False)
    assert [mistake.place for mistake in refused.value.mistakes] == ["--out", "--model"]


# -- memory beside the plan ------------------------------------------------------------------------


def test_of_what_the_driver_says_only_numbers_count() -> None:
    assert numbers(["1024", " 512 ", "[N/A]", "", "[Not Supported]"]) == [1024.0, 512.0]


def test_what_was_on_the_gpus_before_a_run_is_not_the_run_s() -> None:
    """Another process's 500 MiB on one GPU and 30 GB on another; the run takes 2,000 and gives back 1,500."""
    used = iter([("500", "30000"), ("2500", "30000"), ("1000", "30000")])

    def ask(query: str) -> list[str]:
        return [*next(used)] if query == "--query-gpu=memory.used" else ["1, [N/A]"]

    memory = ActorMemory(os.getpid(), "gpu", ask)
    memory.sample()
    memory.sample()
    assert memory.peaks_mib == {"all": 2000.0}


@pytest.mark.parametrize(
    ("size", "more"),
    [("1.7B", ("algorithm.max_staleness=0",)), ("0.6B", SPLIT["gpu"])],
    ids=["shared", "split"],
)
def test_a_run_of_the_check_fits_on_a_gpu_of_80_gb(size: Size, more: tuple[str, ...], tmp_path: Path) -> None:
    _, *chosen = overrides(site(tmp_path, "gpu"), tmp_path, *more)
    assert refusals(plan_of(*chosen, size=size)) == []


def test_a_job_s_memory_is_shared_memory_where_that_has_room_for_the_model(tmp_path: Path) -> None:
    here = site(tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"some")
    assert memory_folder(here, model, tmp_path) == tmp_path
    with (model / "weights").open("ab") as file:
        file.truncate(10**13)  # of which nothing is on the disk
    assert memory_folder(here, model, tmp_path) == here.own
    assert memory_folder(here, model, tmp_path / "missing") == here.own


def test_actors_in_turn_are_not_charged_for_what_the_other_one_leaves_there() -> None:
    parts = [CUDA, STAGED, WEIGHTS]
    assert own_bytes("rollout", parts, in_turn=True) == CUDA_CONTEXT_BYTES + WEIGHTS.size_bytes
    assert own_bytes("learner", parts, in_turn=True) == 8 * 10**9
    assert own_bytes("rollout", parts, in_turn=False) == 9 * 10**9


def test_measured_memory_stands_beside_the_plan_with_its_relative_error() -> None:
    split = plan_of(*SPLIT["gpu"], "rollout.kv_cache_gib=8")
    rollout_gb = split.rollout.bytes_on("gpu") / GB
    peaks_mib = {
        "engine_core": rollout_gb * GB / MIB,
        "rollout_worker": 0.1 * rollout_gb * GB / MIB,
        "all": 1000.0,
    }
    figures = beside_the_plan(peaks_mib, split)
    assert figures["rollout_plan_error"] == pytest.approx(0.1, abs=1e-4)
    assert "learner_plan_error" not in figures, "nothing was measured of it"
    assert figures["learner_planned_gb"] == pytest.approx(split.learner.bytes_on("gpu") / GB, abs=1e-3)
    together_gb = rollout_gb + split.learner.bytes_on("gpu") / GB
    assert figures["gpu_planned_gb"] == pytest.approx(together_gb, abs=1e-3)
    assert "key-values 8.59" in str(figures["rollout_planned_as"])


def test_of_actors_in_turn_the_larger_one_and_one_context_are_on_the_gpu() -> None:
    in_turn = plan_of()
    assert in_turn.sharing == "in turn"
    figures = beside_the_plan({"all": 1000.0}, in_turn)
    parts = [part for part in in_turn.learner.memory if part.where == "gpu"]
    larger_gb = max(float(figures["rollout_planned_gb"]), own_bytes("learner", parts, True) / GB)
    assert figures["gpu_planned_gb"] == pytest.approx(larger_gb + CUDA_CONTEXT_BYTES / GB, abs=2e-3)


def test_each_card_has_its_facts() -> None:
    lines = [
        "NVIDIA H100, 580.1, 81559, 81000, 700.00, Disabled",
        "NVIDIA H100, 580.1, 81559, 9, 700.00, Disabled",
    ]
    facts = card_facts(lines)
    assert facts["card_0_memory_free"] == "81000"
    assert facts["card_1_memory_free"] == "9"
    assert card_facts([]) == {}


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_runs_of_both_devices_are_settings_that_a_run_accepts(tmp_path: Path, device: str) -> None:
    here = site(tmp_path, device)
    for more in ((), SPLIT[here.device], ("rollout.eager=true", "algorithm.max_staleness=0")):
        settings = settings_of(overrides(here, tmp_path, *more))
        assert settings.placement.device == device
        assert settings.heldout.prompts == 0
        assert (settings.rollout.max_completion_tokens < 64) == (device == "cpu")


def test_a_stage_sees_the_first_of_the_gpus_that_the_check_was_given() -> None:
    assert visible_gpus(None, 2) == ["0", "1"]
    assert visible_gpus("GPU-a, 3", 1) == ["GPU-a"]
    assert visible_gpus("", 1) == ["0"]


def test_medians_leave_out_what_a_step_does_not_have() -> None:
    row = dict.fromkeys(METRIC_NAMES)
    rows = [row | {"step_s": 1.0}, row | {"step_s": 3.0, "learn_s": 2.0}]
    assert medians(rows) == {"median_step_s": 2.0, "median_learn_s": 2.0}


# -- made models and groups ------------------------------------------------------------------------


def test_the_shapes_are_those_of_the_released_models() -> None:
    shape = known_shape("Qwen/Qwen3-1.7B")
    assert shape is not None
    config = SHAPES["1.7B"]
    assert (shape.hidden, shape.mlp, shape.layers) == (
        config["hidden_size"],
        config["intermediate_size"],
        config["num_hidden_layers"],
    )
    assert (shape.vocabulary, shape.queries, shape.keys) == (config["vocab_size"], 16 * 128, 8 * 128)


def test_the_tokenizer_fills_its_vocabulary_with_tokens_that_have_a_text_and_keeps_digits_apart() -> None:
    tokenizer = made_tokenizer(20_000)
    assert len(tokenizer) == 20_000
    assert tokenizer.decode(tokenizer.encode("12 plots\n")) == "12 plots\n"
    assert all(len(tokenizer.encode(digit)) == 1 for digit in DIGITS)
    last = tokenizer.decode([19_000])
    assert last
    assert len(tokenizer.encode(last)) == 1, "a sampled token becomes about as many again"


def test_a_tiny_model_is_read_back_and_its_log_probabilities_tell_other_tokens_apart(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    write_model(tmp_path / "model", TINY, on_gpu=False)
    assert read_shape(tmp_path / "model").vocabulary == TINY["vocab_size"]
    model = loaded(tmp_path / "model", "cpu")
    logprobs = logprobs_T(model, (300, 301, 302, 303))
    assert logprobs.shape == (3,)
    spans = (VersionSpan(0, 0, 2),)
    same = EngineResult((302, 303), tuple(logprobs[1:].tolist()), "length", spans)
    assert mismatch_nats(model, (300, 301), same) == pytest.approx(0.0, abs=1e-6)
    other = EngineResult((304, 305), tuple(logprobs[1:].tolist()), "length", spans)
    assert mismatch_nats(model, (300, 301), other) > 0.1


def test_made_groups_are_groups_that_the_learner_decodes(tiny: Path) -> None:
    groups = decode_groups([made_groups(tiny, 3, 7, (12, 5))], ["made"], 2, TINY["vocab_size"])
    assert [len(group.context_ids) for group in groups] == [7, 7, 7]
    assert all([*map(len, group.completion_ids_G)] == [12, 5] for group in groups)


# -- the stage attention ---------------------------------------------------------------------------


def test_the_row_of_the_stage_attention_is_a_full_one(tiny: Path) -> None:
    tokens = ROW_TOKENS["gpu"]
    settings = settings_of(overrides(site(tiny, "gpu"), tiny, f"learner.token_budget={tokens}"))
    groups, prompt, completions_G = made_of(tokens, settings.rollout.group_size)
    row = made_row(settings, made_groups(tiny, groups, prompt, completions_G), TINY["vocab_size"])
    assert 0.99 * tokens < len(row.input_ids_S) <= tokens
    assert len(row.layout) == groups
    assert completions_G[-1] > 3.9 * completions_G[0], "of many lengths, as a run's are"


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dry")


def test_a_machine_without_the_kernel_still_gives_the_figures_of_the_default(dry: Path) -> None:
    def missing() -> VarlenKernel:
        raise ImportError("no such kernel")

    here = replace(site(dry), stage="missing")
    with pytest.raises(UserError, match="no such kernel"):
        attention.measure_with(here, missing)
    figures = read_figures(here.figures_file)
    assert {"row_tokens", "sdpa_row_s", "sdpa_mfu", "sdpa_host_share", "mfu_aim"} <= figures.keys()
    assert not [name for name in figures if name.startswith("varlen")]


def test_a_dry_run_of_the_stage_attention_finds_both_forms_the_same_and_times_them(dry: Path) -> None:
    here = site(dry)
    attention.measure(here)
    figures = read_figures(here.figures_file)
    assert figures["logprobs_apart_nats"] < 0.01  # type: ignore[operator]
    assert figures["gradients_apart"] < 0.05  # type: ignore[operator]
    for form in ("sdpa", "varlen"):
        assert figures[f"{form}_busy_s"] > 0  # type: ignore[operator]
        assert {f"{form}_row_s", f"{form}_mfu", f"{form}_host_share"} <= figures.keys()
    assert {"varlen_vs_sdpa", "mfu_aim", "host_share_aim"} <= figures.keys()
    assert {f"{name}_off_{form}" for name in NAMES for form in ("sdpa", "varlen")} <= figures.keys()
