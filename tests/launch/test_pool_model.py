"""The model of `judge.pool`: whose folder it is, and what is refused of it, at its own place."""

from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.launch.pool_model import pool_folder, pool_hashes, pool_shape
from dynalign.run_folder.content import content_mistakes
from tests.worlds.chat_models import tiny_chat_model

POLICY = Path("policy")


def settings(*overrides: str) -> RunSettings:
    return load_run("quickstart", overrides).settings


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("judge"))


def test_a_pool_without_a_model_holds_the_policys() -> None:
    assert pool_folder(settings(), POLICY, fetch=True) is None
    assert pool_folder(settings("judge.pool={}"), POLICY, fetch=True) == POLICY
    assert pool_shape(settings("judge.pool={}")) is None
    assert pool_hashes(settings("judge.pool={}")) == {}


def test_a_model_that_is_named_has_figures_and_hashes_of_its_own(model: Path) -> None:
    run = settings(f"judge.pool.model={model}")
    assert pool_folder(run, POLICY, fetch=True) == model
    shape = pool_shape(run)
    assert shape is not None
    assert shape.vocabulary == 320
    before = pool_hashes(run)
    after = before | {"judge.pool.model: weights": "others"}
    (mistake,) = content_mistakes(before, after, {"judge.pool.model": str(model)})
    assert mistake.place == "judge.pool.model"
    assert "the checkpoint was made with other content there (weights)" in mistake.rule


def test_a_model_that_is_nowhere_is_refused_at_its_own_place() -> None:
    run = settings("judge.pool.model=./nowhere")
    with pytest.raises(UserError) as refused:
        pool_folder(run, POLICY, fetch=False)
    (mistake,) = refused.value.mistakes
    assert (mistake.place, mistake.value) == ("judge.pool.model", "./nowhere")
    assert pool_shape(run) is None
    assert pool_hashes(run) == {}


def test_a_folder_that_lacks_something_is_refused_before_anything_starts(model: Path, tmp_path: Path) -> None:
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((model / file).read_bytes())
    with pytest.raises(UserError, match="has no tokenizer"):
        pool_folder(settings(f"judge.pool.model={tmp_path}"), POLICY, fetch=False)
