"""Configurations of earlier versions: a run folder with one of them can be continued."""

from pathlib import Path

import pytest

from dynalign.configs.earlier_versions import FIXED_SAMPLING, present_function
from dynalign.configs.errors import UserError
from dynalign.configs.load import load_run

CONFIG = """\
name: "verifiable"  # default: the file's name
model: "smollm2-135m-instruct"  # verifiable.yaml:4
rollout:
  temperature: 1.0  # default
  top_p: 1.0  # default
  top_k: -1  # default
judge:
  kind: "function"  # verifiable.yaml:13
  function: "rollout.reward_functions:short_question"  # verifiable.yaml:14
"""
"""Lines of a `config.yaml` that the version before has written into a run folder."""


def test_the_config_of_an_earlier_run_loads(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    loaded = load_run(str(file))
    assert loaded.settings.judge.function == "dynalign.rollout.judges.reward_functions:short_question"
    assert loaded.origins["judge.function"] == "config.yaml:9"
    assert not {f"rollout.{key}" for key in FIXED_SAMPLING} & set(loaded.origins)


@pytest.mark.parametrize(
    "override", ["rollout.temperature=1", "rollout.temperature=1.0", "rollout.top_p=1", "rollout.top_k=-1"]
)
def test_a_sampling_setting_with_its_only_former_value_changes_nothing(override: str) -> None:
    assert load_run("quickstart", [override]) == load_run("quickstart")


def test_each_former_setting_with_another_value_is_refused_in_one_line() -> None:
    with pytest.raises(UserError) as refused:
        load_run("quickstart", [f"rollout.{key}=0.9" for key in FIXED_SAMPLING])
    lines = str(refused.value).splitlines()
    assert [line.split(" ")[0] for line in lines] == [f"rollout.{key}" for key in FIXED_SAMPLING]


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("rollout.reward_functions:mine", "dynalign.rollout.judges.reward_functions:mine"),
        ("dynalign.rollout.judges.reward_functions:mine", "dynalign.rollout.judges.reward_functions:mine"),
        ("rollout.reward_functions2:mine", "rollout.reward_functions2:mine"),
        ("rewards:mine", "rewards:mine"),
        ("no_colon", "no_colon"),
    ],
)
def test_a_function_of_a_moved_module_gets_its_present_name(former: str, present: str) -> None:
    assert present_function(former) == present
