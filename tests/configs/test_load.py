"""Reading a run: files, overrides, origins, and every kind of mistake, all at once."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.configs.errors import UserError
from dynalign.configs.load import load_run, shipped_names
from dynalign.configs.refusals import FIELDS, PATTERNS, suggestion
from dynalign.configs.sections.rollout import WorkersSettings
from dynalign.configs.tree import Leaf, parse_value


def written(folder: Path, text: str, name: str = "mine.yaml") -> str:
    file = folder / name
    file.write_text(text, "utf-8")
    return str(file)


def refused(config: str, *overrides: str) -> list[str]:
    """The lines that the user would read."""
    with pytest.raises(UserError) as caught:
        load_run(config, overrides)
    return str(caught.value).splitlines()


def only_refusal(config: str, *overrides: str) -> str:
    lines = refused(config, *overrides)
    assert len(lines) == 1, lines
    return lines[0]


def test_a_shipped_name_and_a_path_are_both_configs(tmp_path: Path) -> None:
    assert load_run("quickstart").settings.name == "quickstart"
    loaded = load_run(written(tmp_path, "model: some/model\nsteps: 3\n"))
    assert (loaded.settings.name, loaded.settings.model, loaded.settings.steps) == ("mine", "some/model", 3)


def test_each_value_knows_its_origin(tmp_path: Path) -> None:
    path = written(tmp_path, "model: m/m\nrollout:\n  workers: 2\n  group_size: 4\n")
    loaded = load_run(path, ["rollout.workers=3", "learner.lora.rank=8"])
    assert loaded.settings.rollout.workers == WorkersSettings(min=3, max=3)
    assert loaded.origins["rollout.workers.min"] == "command line"
    assert loaded.origins["rollout.group_size"] == "mine.yaml:4"
    assert loaded.origins["rollout.eager"] == "default"
    assert loaded.origins["name"] == "default: the file's name"
    assert (loaded.origins["learner.lora.rank"], loaded.origins["learner.lora.alpha"]) == (
        "command line",
        "default",
    )
    assert loaded.origins["convergence"] == "default"


def test_the_last_override_of_a_key_holds() -> None:
    assert load_run("quickstart", ["steps=5", "steps=6"]).settings.steps == 6


@pytest.mark.parametrize("text", ["1e-6", "1E-6", "1.0e-6", "0.000001", "+1e-6"])
def test_every_way_to_write_a_small_number_is_a_number(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, f"model: m/m\nlearner:\n  learning_rate: {text}\n")
    assert load_run(path).settings.learner.learning_rate == 1e-6
    assert load_run("quickstart", [f"learner.learning_rate={text}"]).settings.learner.learning_rate == 1e-6


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.booleans() | st.none())
def test_every_json_scalar_reads_back_as_itself(value: float | int | bool | None) -> None:
    read = parse_value(json.dumps(value))
    assert isinstance(read, Leaf)
    assert read.value == value
    assert type(read.value) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("no", "no"), ("on", "on"), ("1:30", "1:30"), ("2026-01-31", "2026-01-31"), ("010", 10), ("", None)],
)
def test_words_and_days_stay_what_they_look_like(text: str, value: object) -> None:
    assert parse_value(text) == Leaf(value, "command line")


def test_a_whole_number_will_do_for_a_fraction_but_not_the_other_way_round() -> None:
    assert load_run("quickstart", ["learner.grad_clip=2"]).settings.learner.grad_clip == 2.0
    assert "must be a whole number" in only_refusal("quickstart", "steps=2.0")


def test_lists_become_tuples_and_sections_can_be_given_inline() -> None:
    lora = load_run("quickstart", ["learner.lora={rank: 4, targets: [q_proj, v_proj]}"]).settings.learner.lora
    assert lora is not None
    assert (lora.rank, lora.alpha, lora.targets) == (4, 32.0, ("q_proj", "v_proj"))


def test_an_inline_section_keeps_what_it_does_not_name() -> None:
    rollout = load_run("quickstart", ["rollout={workers: 2}"]).settings.rollout
    assert (rollout.workers.max, rollout.max_completion_tokens) == (
        2,
        load_run("quickstart").settings.rollout.max_completion_tokens,
    )


def test_a_section_can_be_switched_off_from_the_command_line() -> None:
    assert load_run("cluster").settings.convergence is not None
    assert load_run("cluster", ["convergence=null"]).settings.convergence is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rollout.wrkers=2", ["rollout.wrkers", "= 2", "is not a setting", "did you mean rollout.workers?"]),
        ("learning_rate=1e-5", ["did you mean learner.learning_rate?"]),
        ("rollout.learning_rate=1e-5", ["did you mean learner.learning_rate?"]),
        ("rollout.group_size=1", ["rollout.group_size", "= 1", "at least 2 and at most 1,024"]),
        ("learner.learning_rate=fast", ["'fast'", "must be a number"]),
        ("learner.learning_rate=0", ["must be above 0.0"]),
        ("learner.adam_beta1=1.0", ["below 1.0"]),
        ("weights.deadline_s=1e400", ["at most 86,400.0"]),
        ("rollout.eager=yes", ["'yes'", "must be true or false"]),
        ("rollout.dtype=bf16", ["must be one of bfloat16, float32", "set rollout.dtype=bfloat16"]),
        (
            "weights.transport=ncl",
            ["must be one of auto, object_store, shared_memory, ipc, nccl", "weights.transport=nccl"],
        ),
        ("rollout.temperature=0.7", ["= 0.7", "biases the importance ratio", "take it out"]),
        ("rollout.top_p=1.5", ["= 1.5", "fixed at temperature 1", "take it out"]),
        ("rollout.top_k=50", ["= 50", "fixed at temperature 1", "take it out"]),
        ("rollout.top_p=true", ["= True", "fixed at temperature 1", "take it out"]),
        ("rollout.temperature={start: 1}", ["fixed at temperature 1", "take it out"]),
        ("temperature=0.7", ["= 0.7", "fixed at temperature 1", "take it out"]),
        ("model=3", ["must be text"]),
        ("learner.lora={targets: q_proj}", ["learner.lora.targets", "must be a list"]),
        ("learner.lora={targets: [1]}", ["learner.lora.targets", "must be text"]),
        ("heldout=null", ["heldout", "is a section, not a value"]),
        ("steps.x=3", ["steps", "is one value, not a section"]),
        ("name=My Run", ["name", "must be lower-case"]),
        ("date=tomorrow", ["date", "must be a day like 2026-01-31"]),
        ("checkpoint.mirror=bucket/runs", ["checkpoint.mirror", "must be like s3://bucket/path"]),
        ("checkpoint.mirror=s3://", ["checkpoint.mirror", "must be like s3://bucket/path"]),
        ("steps", ["steps", "is not of the form section.key=value", "write steps=<value>"]),
        ("rollout..workers=2", ["has an empty key"]),
        ("runs=[1", ["runs (command line)", "cannot be read as settings"]),
        ("runs=*a", ["undefined alias"]),
        (f"steps={'9' * 5000}", ["a number of 5,000 digits"]),
        ("runs=!!python/object/apply:os.getcwd []", ["runs", "the tag", "is not supported"]),
        ("runs=!!set {a: 1}", ["the tag", "is not supported"]),
        ("learner.learning_rate=!!float x", ["'x' is not a number"]),
        ("steps=!!int x", ["'x' is not a whole number"]),
        (f"steps={'9' * 101}", ["a number of 101 digits"]),
        (f"learner.learning_rate={'9' * 5000}", ["a number of 5,000 digits"]),
        ("steps=", ["steps (command line)", "has no value", "whole number", "digits only"]),
        (
            "lerner.learning_rate=1",
            ["lerner.learning_rate (command line) = 1", "did you mean learner.learning_rate"],
        ),
        ("a.b=", ["a.b (command line)", "is not a setting"]),
        ("log_level=INFO", ["'INFO'", "set log_level=info"]),
        ("prompts.source=hub:", ["is one value", "in quotes", "hub:owner/name"]),
        ("learner={learner.threads: 1}", ["a key with a dot"]),
        (f"{'x' * 1000}=1", ["xxx…", "is not a setting"]),
        (f"log_level={'x' * 5000}", ["'xxxxx", "xxx...xxx", "must be one of"]),
        ("rollout={workers: 1, workers: 2}", ["stands twice"]),
    ],
)
def test_a_wrong_override_is_named_with_its_rule_and_a_remedy(override: str, words: list[str]) -> None:
    line = only_refusal("quickstart", override)
    assert all(word in line for word in words), line


def test_mistakes_of_all_kinds_are_reported_together(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "model: m/m\nmodel: n/n\nrollout:\n  wrkers: 2\n  group_size: 1\n"
        "placement:\n  mode: shared\nsteps: many\n",
    )
    places = [line.split(":")[0].split(" ")[0] for line in refused(path, "bare", "learner.ranks=0", "x=*a")]
    assert sorted(places) == sorted(
        [
            "model",
            "bare",
            "x",
            "steps",
            "rollout.wrkers",
            "rollout.group_size",
            "learner.ranks",
            "algorithm.max_staleness",
        ]
    )


def test_a_mistake_in_a_file_names_file_and_line(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "model: m/m\nrollout:\n  group_size: 1\nplacement: {mode: shared}\nalgorithm:\n  max_staleness: 2\n",
    )
    first, second = refused(path)
    assert first.startswith("rollout.group_size (mine.yaml:3) = 1: ")
    assert second.startswith("algorithm.max_staleness (mine.yaml:6) = 2: ")


def test_a_rule_says_nothing_about_values_that_were_refused_already() -> None:
    line = only_refusal("quickstart", "placement.mode=shared", "algorithm.max_staleness=many")
    assert "must be a whole number" in line


def test_a_missing_model_is_a_mistake_and_no_rule_is_lost(tmp_path: Path) -> None:
    missing, broken = refused(written(tmp_path, "placement: {mode: shared}\n"))
    assert missing.startswith("model: is missing; set model: ")
    assert broken.startswith("algorithm.max_staleness = 1: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"model: m/m\nsteps: {'9' * 5000}\n", ["mine.yaml:2", "steps: a number of 5,000 digits"]),
        ("- a\n- b\n", ["mine.yaml:1", "its top level is not a mapping"]),
        ("model: m/m\nrollout:\n\tworkers: 2\n", ["mine.yaml:3"]),
        ("model: 'm\n", ["mine.yaml"]),
        ("{[a]: b}\n", ["mine.yaml:1", "a key is a list or a mapping"]),
        ("model: !!python/name:os.getcwd x\n", ["mine.yaml:1", "is not supported"]),
        ("learner:\n  lora:\n    targets: [{a: b}]\n", ["mine.yaml:3", "a list contains a mapping"]),
        ("model: &a [*a]\n", ["an anchor refers to itself"]),
        ("a: " + "[" * 5000, ["mine.yaml"]),
        ("model: a\0b\n", ["mine.yaml"]),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused_by_line(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    line = only_refusal(written(tmp_path, text))
    assert all(word in line for word in words), line


def test_an_unreadable_file_is_refused_and_the_overrides_are_still_judged(tmp_path: Path) -> None:
    first, second = refused(str(tmp_path / "absent.yaml"), "steps=many")
    assert "No such file" in first
    assert all(name in first for name in shipped_names())
    assert second.startswith("steps")
    (tmp_path / "latin.yaml").write_bytes(b"model: \xff\n")
    assert "not UTF-8" in only_refusal(str(tmp_path / "latin.yaml"))
    assert "cannot be read" in only_refusal(str(tmp_path))


def test_an_unknown_name_is_told_what_is_shipped() -> None:
    line = only_refusal("quickstrt")
    assert "did you mean quickstart?" in line
    assert all(name in line for name in shipped_names())


def test_an_empty_file_lacks_a_model(tmp_path: Path) -> None:
    assert only_refusal(written(tmp_path, "# nothing\n")).startswith("model: is missing")


def test_a_file_name_that_cannot_name_a_run_asks_for_a_name(tmp_path: Path) -> None:
    path = written(tmp_path, "model: m/m\n", name="My Run.yaml")
    assert only_refusal(path).startswith("name (default: the file's name) = 'My Run'")
    assert load_run(path, ["name=mine"]).settings.name == "mine"


def test_no_mistake_speaks_the_validator_s_language_or_points_to_a_web_page(tmp_path: Path) -> None:
    bad = "\n".join(f"{key}: {{x: 1}}" if "." not in key else "" for key in FIELDS)
    text = "\n".join(refused(written(tmp_path, bad), "learner.ranks=a", "rollout.dtype=3", "name=A", "x.y=1"))
    assert not [
        word for word in ("http", "pydantic", "Input should", "input_type", "Extra inputs") if word in text
    ]


def test_every_pattern_of_the_schema_has_words() -> None:
    with_pattern = {
        path for path, field in FIELDS.items() if "pattern" in repr(field.annotation) + repr(field.metadata)
    }
    assert with_pattern == set(PATTERNS)


def test_every_setting_says_what_it_means() -> None:
    undocumented = [
        path
        for path, field in FIELDS.items()
        if not field.description and "Settings" not in repr(field.annotation)
    ]
    assert undocumented == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("group_sze", "rollout.group_size"), ("lora.rank", "learner.lora.rank"), ("zzzz", None)],
)
def test_a_suggestion_is_close_or_absent(typed: str, meant: str | None) -> None:
    assert suggestion(typed) == meant
