"""Every cross-field rule: what breaks it, and that mending it is enough."""

import pytest

from dynalign.configs.errors import UserError
from dynalign.configs.load import load_run
from dynalign.configs.refusals import FIELDS
from dynalign.configs.rules import RULES

PANEL = ["judge.kind=panel", "judge.scorer=sampled", "judge.stances=[asker, harm]"]

PROBE = ["capability.items=100", "capability.every_steps=50", "steps=100"]

BROKEN = {
    "capability_has_enough_items": ([*PROBE, "capability.items=29"], "capability.items"),
    "capability_has_a_point_before_the_end": ([*PROBE, "steps=50"], "capability.every_steps"),
    "capability_items_fit_into_their_steps": ([*PROBE, "capability.every_steps=6"], "capability.every_steps"),
    "capability_suite_has_its_data": ([*PROBE, "capability.suite=paper"], "capability.suite"),
    "capability_data_is_a_folder": (["capability.data=s3://bucket/items"], "capability.data"),
    "evaluation_waits_where_engines_sleep": (
        ["heldout.waits=false", "placement.mode=shared", "algorithm.max_staleness=0"],
        "heldout.waits",
    ),
    "shared_placement_needs_zero_staleness": (
        ["placement.mode=shared", "algorithm.max_staleness=1"],
        "algorithm.max_staleness",
    ),
    "function_judge_needs_function": (["judge.kind=function"], "judge.function"),
    "function_needs_function_judge": (["judge.function=a.b:c"], "judge.function"),
    "function_is_module_colon_callable": (
        ["judge.kind=function", "judge.function=a.b.c"],
        "judge.function",
    ),
    "more_samples_need_sampled_scorer": (["judge.samples=2"], "judge.samples"),
    "aggregate_needs_factorized_rubric": (["judge.aggregate=min"], "judge.aggregate"),
    "external_judge_needs_models": (["judge.kind=external"], "judge.models"),
    "models_need_a_judge_that_asks_them": (["judge.models=[gpt]"], "judge.models"),
    "ranked_judge_asks_one_model": (["judge.kind=ranked", "judge.models=[a, b]"], "judge.models"),
    "asked_names_are_names_and_distinct": (["judge.probes=[gpt, gpt]"], "judge.probes"),
    "policy_is_no_other_model": (["judge.kind=external", "judge.models=[self]"], "judge.models"),
    "panel_needs_two_stances": (
        ["judge.kind=panel", "judge.scorer=sampled", "judge.stances=[harm]"],
        "judge.stances",
    ),
    "stances_need_a_panel": (["judge.stances=[asker, harm]"], "judge.stances"),
    "stances_are_distinct_names": ([*PANEL, "judge.stances=[harm, harm]"], "judge.stances"),
    "panel_asks_the_policy_in_all_stances_or_in_none": (
        [*PANEL, "judge.stances=[asker, 'harm:gpt']"],
        "judge.stances",
    ),
    "panel_needs_sampled_scorer": ([*PANEL, "judge.scorer=expected"], "judge.scorer"),
    "panel_takes_one_sample": ([*PANEL, "judge.samples=2"], "judge.samples"),
    "panel_and_ranking_use_one_rubric": (["judge.kind=ranked", "judge.rubric=factorized"], "judge.rubric"),
    "trimmed_mean_needs_three_scores": (
        ["judge.kind=external", "judge.models=[a, b]", "judge.settle=trimmed_mean"],
        "judge.settle",
    ),
    "panel_veto_is_a_stance_among_others": ([*PANEL, "judge.veto=[asker, harm]"], "judge.veto"),
    "veto_is_somebody_else": (["judge.veto=[self]"], "judge.veto"),
    "ranking_has_no_veto": (["judge.kind=ranked", "judge.veto=[frozen]"], "judge.veto"),
    "probe_is_somebody_else": (["judge.probes=[self]"], "judge.probes"),
    "factorized_probe_needs_unified_rubric": (
        ["judge.rubric=factorized", "judge.probe_factorized=true"],
        "judge.probe_factorized",
    ),
    "consistency_is_that_of_the_live_policy": (
        ["judge.kind=frozen", "judge.consistency_weight=true"],
        "judge.consistency_weight",
    ),
    "consistency_needs_the_initial_policy_on_every_group": (
        ["judge.probes=[frozen]", "judge.consistency_weight=true"],
        "judge.consistency_weight",
    ),
    "grades_ascend": (
        ["judge.values=./v", "judge.lowest_grade=5", "judge.highest_grade=5"],
        "judge.lowest_grade",
    ),
    "expected_grades_are_one_digit": (["judge.values=./v", "judge.highest_grade=10"], "judge.highest_grade"),
    "other_grades_need_texts_of_their_own": (["judge.highest_grade=9"], "judge.highest_grade"),
    "token_budget_at_least_longest_sequence": (["learner.token_budget=559"], "learner.token_budget"),
    "minibatches_at_most_prompts_per_step": (["algorithm.minibatches=5"], "algorithm.minibatches"),
    "ranks_at_most_candidates_per_step": (["learner.ranks=33"], "learner.ranks"),
    "warmup_steps_at_most_steps": (["learner.warmup_steps=9"], "learner.warmup_steps"),
    "taper_needs_two_contexts": (
        ["algorithm.system_prompt=kept", "algorithm.context_taper=true"],
        "algorithm.context_taper",
    ),
    "distillation_needs_two_contexts": (
        ["algorithm.system_prompt=kept", "algorithm.distill_coef=0.1"],
        "algorithm.distill_coef",
    ),
    "gap_probes_at_most_group_size": (["rollout.gap_probes=9"], "rollout.gap_probes"),
    "lora_targets_present_and_distinct": (["learner.lora.targets=[]"], "learner.lora.targets"),
    "convergence_needs_heldout_prompts": (["convergence.window=2", "heldout.prompts=0"], "convergence"),
    "convergence_window_at_most_evaluations": (["convergence.window=4"], "convergence.window"),
    "lease_deadline_below_batch_deadline": (["deadlines.lease_s=1800"], "deadlines.lease_s"),
    "min_workers_at_most_max": (["rollout.workers={min: 3, max: 2}"], "rollout.workers.min"),
    "adapter_content_needs_lora": (["weights.content=adapter"], "weights.content"),
    "adapter_rank_at_most_512": (
        ["weights.content=adapter", "learner.lora.rank=513"],
        "learner.lora.rank",
    ),
    "adapter_content_needs_object_store": (
        ["weights.content=adapter", "learner.lora.rank=8", "weights.transport=nccl"],
        "weights.transport",
    ),
    "shared_gpus_need_one_worker_per_rank": (
        ["placement.mode=shared", "placement.device=gpu", "algorithm.max_staleness=0", "learner.ranks=2"],
        "rollout.workers",
    ),
    "tensor_parallel_needs_separate_gpus": (["rollout.tensor_parallel=2"], "rollout.tensor_parallel"),
    "endpoint_names_are_names_of_their_own": (
        ["judge.endpoints.pool={address: a, model: m}"],
        "judge.endpoints.pool",
    ),
    "endpoints_are_asked": (["judge.endpoints.big={address: a, model: m}"], "judge.endpoints.big"),
    "endpoint_answers_before_its_group_is_late": (
        ["judge.probes=[big]", "judge.endpoints.big={address: a, model: m, deadline_s: 1200}"],
        "judge.endpoints.big.deadline_s",
    ),
    "pool_tensor_parallel_needs_gpus": (["judge.pool.tensor_parallel=2"], "judge.pool.tensor_parallel"),
    "pool_answers_before_its_group_is_late": (["judge.pool.answer_s=1200"], "judge.pool.answer_s"),
    "pool_model_is_a_name_or_a_path": ([f"judge.pool.model={'x' * 300}"], "judge.pool.model"),
    "shared_gpu_needs_zero_stage_1_or_2": (
        [
            "placement.mode=shared",
            "placement.device=gpu",
            "algorithm.max_staleness=0",
            "learner.zero_stage=3",
        ],
        "learner.zero_stage",
    ),
    "varlen_attention_needs_bfloat16_on_a_gpu": (["learner.attention=varlen"], "learner.attention"),
    "mirror_address_without_credentials": (
        ["checkpoint.mirror=s3://key:word@bucket/runs"],
        "checkpoint.mirror",
    ),
    "mirror_outside_runs_folder": (
        ["runs=/data/runs", "checkpoint.mirror=file:///data/runs/mirror"],
        "checkpoint.mirror",
    ),
    "date_is_a_day_of_the_calendar": (["date=2026-02-30"], "date"),
    "runs_is_a_folder": (["runs=s3://bucket/runs"], "runs"),
    "model_is_a_name_or_a_path": ([f"model={'x' * 300}"], "model"),
    "values_is_a_folder": (["judge.values=~nobody-of-this-name/values"], "judge.values"),
    "prompts_source_is_a_known_kind": (["prompts.source=tasks.xlsx"], "prompts.source"),
    "metrics_host_is_an_address": (["metrics.host=999.1.1.1"], "metrics.host"),
}
"""Rule → overrides that break it, and the setting that it names. The run has 4 prompts of 8 candidates, 8
steps, an evaluation every 4 steps, and 512 + 48 tokens."""

RUN = [
    "steps=8",
    "rollout.prompts_per_step=4",
    "rollout.group_size=8",
    "heldout.every_steps=4",
    "rollout.max_completion_tokens=48",
]

MENDED = [
    ["placement.mode=shared", "algorithm.max_staleness=0"],
    ["judge.kind=function", "judge.function=a.b:c"],
    ["judge.samples=2", "judge.scorer=sampled"],
    ["judge.aggregate=min", "judge.rubric=factorized"],
    ["judge.kind=external", "judge.models=[gpt, qwen-3.5_x]", "judge.veto=[frozen]"],
    ["judge.kind=external", "judge.models=[a, b, frozen]", "judge.settle=trimmed_mean"],
    ["judge.veto=[frozen]", "judge.probes=[gpt]", "judge.probe_factorized=true"],
    ["judge.kind=ranked", "judge.models=[frozen]", "judge.probes=[self]"],
    [*PANEL, "judge.veto=[harm]", "judge.rounds=0"],
    [*PANEL, "judge.stances=['asker:gpt', 'harm:frozen']", "judge.probe_factorized=true"],
    ["judge.kind=function", "judge.function=a.b:c", "judge.veto=[self]"],
    ["judge.values=./v", "judge.lowest_grade=1", "judge.highest_grade=9"],
    ["judge.values=./v", "judge.scorer=sampled", "judge.highest_grade=100"],
    ["judge.consistency_weight=true", "judge.probes=[frozen]", "judge.probe_fraction=1"],
    ["judge.consistency_weight=true", "judge.veto=[frozen]"],
    ["algorithm.context_taper=true", "algorithm.distill_coef=0.1"],
    ["algorithm.system_prompt=kept"],
    ["learner.token_budget=560"],
    ["algorithm.minibatches=4"],
    ["learner.ranks=32"],
    ["learner.warmup_steps=8"],
    ["rollout.gap_probes=8"],
    ["learner.lora.targets=[q_proj]"],
    ["convergence.window=3"],
    ["deadlines.lease_s=1799"],
    [
        "placement.mode=shared",
        "placement.device=gpu",
        "algorithm.max_staleness=0",
        "rollout.workers=2",
        "learner.ranks=2",
    ],
    ["placement.mode=shared", "algorithm.max_staleness=0", "rollout.workers=2"],
    ["rollout.tensor_parallel=2", "placement.device=gpu"],
    ["learner.attention=varlen", "placement.device=gpu"],
    ["weights.content=adapter", "learner.lora.rank=512", "weights.transport=object_store"],
    ["checkpoint.mirror=s3://bucket/runs?endpoint_override=minio:9000&scheme=http"],
    ["runs=/data/runs", "checkpoint.mirror=file:///data/mirror"],
    ["date=2028-02-29"],
    ["runs=~/runs", "model=owner/name", "judge.values=./values", "prompts.source=~/tasks.jsonl"],
    ["prompts.source=hub:owner/name"],
    ["prompts.source=hub:owner/name/subset:train[:100]", "prompts.column=messages"],
    ["prompts.source=shards/"],
    ["prompts.source=tasks.csv.gz"],
    ["capability.items=30", "capability.every_steps=7", "steps=8"],
    [*PROBE, "capability.suite=paper", "capability.data=~/items"],
    [*PROBE, "capability.every_steps=6", "placement.mode=shared", "algorithm.max_staleness=0"],
    ["heldout.waits=false"],
    ["metrics.host=0.0.0.0"],
    ["metrics.host=::1"],
    ["metrics.host=head-0.ray.svc.cluster.local"],
]


def test_every_rule_is_tested() -> None:
    assert set(BROKEN) == {rule.check.__name__ for rule in RULES}


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_broken_rule_names_its_setting(name: str) -> None:
    overrides, place = BROKEN[name]
    with pytest.raises(UserError) as caught:
        load_run("quickstart", [*RUN, *overrides])
    (mistake,) = caught.value.mistakes
    assert mistake.place.split(" ")[0] == place
    (rule,) = (rule for rule in RULES if rule.check.__name__ == name)
    assert any(
        read == place or read.startswith(f"{place}.") or place.startswith(f"{read}.") for read in rule.reads
    )


@pytest.mark.parametrize("overrides", MENDED, ids=lambda overrides: " ".join(overrides))
def test_a_run_on_the_edge_of_a_rule_is_accepted(overrides: list[str]) -> None:
    load_run("quickstart", [*RUN, *overrides])


def test_all_broken_rules_are_reported_together() -> None:
    with pytest.raises(UserError) as caught:
        load_run("quickstart", [*RUN, "judge.samples=2", "learner.ranks=33", "placement.mode=shared"])
    assert len(caught.value.mistakes) == 3


def test_rules_read_settings_that_exist() -> None:
    assert {path for rule in RULES for path in rule.reads} <= set(FIELDS)


@pytest.mark.parametrize("name", ["f", "a.b", ":f", "a:", "a b:f", "a:b:c", "1a:f", "a..b:f"])
def test_a_function_without_module_or_name_is_refused(name: str) -> None:
    with pytest.raises(UserError):
        load_run("quickstart", ["judge.kind=function", f"judge.function='{name}'"])


def test_an_adapter_target_stands_once() -> None:
    with pytest.raises(UserError, match="names a layer twice"):
        load_run("quickstart", ["learner.lora.targets=[q_proj, q_proj]"])


def test_flash_attention_is_refused_in_float32_too() -> None:
    refused = "no kernel for learner.precision=float32; .* or learner.precision=bfloat16"
    with pytest.raises(UserError, match=refused):
        load_run(
            "quickstart", ["placement.device=gpu", "learner.attention=varlen", "learner.precision=float32"]
        )


def test_an_evaluation_is_counted_before_the_first_and_after_the_last_step() -> None:
    with pytest.raises(UserError, match="have 3 evaluations"):
        load_run("quickstart", ["steps=7", "heldout.every_steps=4", "convergence.window=4"])
