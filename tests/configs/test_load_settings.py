"""The settings of a command that is no run: file, overrides, origins, and every mistake at once."""

from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.configs.load_settings import LoadedSettings, load_settings
from dynalign.configs.prompt_making_rules import prompt_making_mistakes
from dynalign.configs.refusals import schema_fields
from dynalign.configs.sections.prompt_making import PromptMakingSettings

ASKED = ("endpoint.address=http://a/v1", "endpoint.model=m")


def loaded(config: str | None, *overrides: str) -> LoadedSettings[PromptMakingSettings]:
    return load_settings(PromptMakingSettings, config, overrides, "see docs", prompt_making_mistakes)


def refused(config: str | None, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as error:
        loaded(config, *overrides)
    return [str(mistake) for mistake in error.value.mistakes]


def test_a_file_and_overrides_become_settings_that_know_where_they_come_from(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("count: 20\nwriter:\n  temperature: 0.5\n  max_tokens: 900\n")
    found = loaded(str(tmp_path / "mine.yaml"), "count=30", *ASKED)
    assert (found.settings.count, found.settings.writer.temperature) == (30, 0.5)
    assert found.origins["count"] == "command line"
    assert found.origins["writer.temperature"] == "mine.yaml:3"
    assert found.origins["rounds"] == "default"


def test_a_part_of_a_section_leaves_the_rest_of_it_at_the_section_s_own_default() -> None:
    settings = loaded(None, "critic.max_tokens=300", *ASKED).settings
    assert (settings.critic.max_tokens, settings.goals.max_tokens) == (300, 300)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("count=0", "count (command line) = 0: must be at least 1"),
        ("cuont=3", "did you mean count?"),
        ("writer.endpoint.adress=http://a", "did you mean writer.endpoint.address?"),
        ("kind=poem", "must be one of task, dilemma"),
        ("zzzz=3", "see docs"),
        ("rounds", "is not of the form"),
        ("min_characters=5000", "is above max_characters"),
        ("pool.model=m", "nobody knows whom an agent asks"),
    ],
)
def test_a_mistake_is_one_line(override: str, said: str) -> None:
    lines = refused(None, *ASKED, override)
    assert any(said in line for line in lines), lines


def test_all_mistakes_come_at_once() -> None:
    assert len(refused(None, *ASKED, "count=0", "seed=x", "rounds=99")) == 3


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert "cannot be read" in refused(str(tmp_path / "absent.yaml"), *ASKED)[0]


def test_without_a_model_nothing_can_be_asked() -> None:
    (line,) = refused(None)
    assert "--local MODEL" in line
    own = [f"{agent}.endpoint.{key}" for agent in ("goals", "writer", "critic", "refine")
           for key in ("address=http://a/v1", "model=m")]  # fmt: skip
    assert loaded(None, *own).settings.endpoint is None


def test_every_setting_says_what_it_means() -> None:
    for path, field in schema_fields(PromptMakingSettings):
        assert field.description, path
