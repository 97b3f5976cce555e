"""The arms of every experiment, for the settings that they are given."""

import pytest

from dynalign.configs.errors import UserError
from dynalign.configs.load import load_run
from dynalign.evaluation.experiments.arms import SMALL, Arm, Design
from dynalign.evaluation.experiments.catalogue import EXPERIMENTS, ExperimentRequest, design_of
from dynalign.evaluation.experiments.measures import MEASURES
from dynalign.evaluation.experiments.plan import OPERATION, OWN
from dynalign.evaluation.experiments.verifiable_value import JUDGES
from dynalign.rollout.judges.function import load_function


def every_design(*given: str) -> list[Design]:
    request = ExperimentRequest(load_run("quickstart", given).settings, models=("a/One", "b/Two"))
    return [design_of(name, request) for name in EXPERIMENTS]


@pytest.mark.parametrize("design", every_design(), ids=lambda design: design.experiment)
def test_a_design_is_whole(design: Design) -> None:
    names = [arm.name for arm in design.arms]
    assert len(set(names)) == len(names)
    assert design.baseline in names
    assert design.arm(design.baseline).small
    assert sum(arm.small for arm in design.arms) >= min(2, len(design.arms))
    assert {design.primary, *design.secondary} <= set(MEASURES)
    assert MEASURES[design.primary].by_prompt
    assert MEASURES[design.primary].better == "higher"
    for arm in design.arms:
        load_run("quickstart", [f"name={arm.name}-s0"])  # the name of a run


SMALL_SETTINGS = Arm("", "", SMALL).overrides()


@pytest.mark.parametrize("design", every_design(*SMALL_SETTINGS), ids=lambda design: design.experiment)
def test_the_arms_are_settings_that_exist_and_keep_every_rule(design: Design) -> None:
    before = Arm("", "", (*SMALL, *design.small, *design.needs)).overrides()
    seen = set()
    for arm in design.arms:
        assert not any(path in OWN or path.startswith(OPERATION) for path, _ in arm.changes)
        seen.add(load_run("quickstart", [*before, *arm.overrides()]).settings.model_dump_json())
    assert len(seen) == len(design.arms)


def test_where_a_function_judges_the_arms_of_rubric_are_functions_that_can_be_loaded() -> None:
    given = ["judge.kind=function", "judge.function=dynalign.rollout.judges.reward_functions:short_words"]
    design = EXPERIMENTS["rubric"](ExperimentRequest(load_run("quickstart", given).settings))
    assert design.counted
    for arm in design.arms:
        judge = load_run("quickstart", [*given, *arm.overrides()]).settings.judge
        assert load_function(judge.function or "") is JUDGES[judge.function or ""]


def test_groups_of_another_size_have_as_many_samples_or_as_many_prompts() -> None:
    settings = load_run("quickstart").settings
    design = EXPERIMENTS["group-size"](ExperimentRequest(settings))
    samples = settings.rollout.group_size * settings.rollout.prompts_per_step
    assert [arm.name for arm in design.arms] == [
        "samples-g2", "samples-g4", "g8", "samples-g16", "prompts-g2", "prompts-g4", "prompts-g16",
    ]  # fmt: skip
    for arm in design.arms:
        rollout = load_run("quickstart", arm.overrides()).settings.rollout
        if arm.family == "at equal samples":
            assert rollout.group_size * rollout.prompts_per_step == samples
        else:
            assert rollout.prompts_per_step == settings.rollout.prompts_per_step
        assert rollout.group_size * rollout.groups_in_flight == samples


def test_a_group_size_of_the_users_own_is_the_baseline() -> None:
    settings = load_run("quickstart", ["rollout.group_size=6"]).settings
    design = EXPERIMENTS["group-size"](ExperimentRequest(settings))
    assert design.baseline == "g6"
    assert [arm.name for arm in design.arms if arm.family == "at equal samples"] == [
        "samples-g2", "samples-g4", "g6", "samples-g8",
    ]  # fmt: skip


def test_an_external_judge_is_an_arm_where_an_endpoint_is_configured() -> None:
    endpoint = ["judge.endpoints.big.address=http://host/v1", "judge.endpoints.big.model=m"]
    settings = load_run("quickstart", [*endpoint, "judge.probes=[big]"]).settings
    names = [arm.name for arm in EXPERIMENTS["judge"](ExperimentRequest(settings)).arms]
    assert "external" in names
    plain = EXPERIMENTS["judge"](ExperimentRequest(load_run("quickstart").settings))
    assert "external" not in [arm.name for arm in plain.arms]


def test_models_become_arms_whose_names_are_names_of_runs() -> None:
    request = ExperimentRequest(
        load_run("quickstart").settings, models=("Qwen/Qwen3-0.6B", "models/tiny_one/")
    )
    names = [arm.name for arm in EXPERIMENTS["architecture"](request).arms]
    assert names == ["m1-qwen3-0-6b", "m2-tiny-one"]
    with pytest.raises(UserError, match="fewer than two models"):
        design_of("architecture", ExperimentRequest(request.settings))
