"""A run that is replayed as it was agrees; whatever must matter and was changed is noticed."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from dynalign.configs.errors import UserError
from dynalign.configs.schema import RunSettings
from dynalign.launch.commands.replay import replay
from dynalign.rollout.arrow_schema import SCHEMA, decode, encode
from dynalign.run_folder.checkpoint import fixed_settings, seal
from dynalign.run_folder.layout import aside_folder
from dynalign.run_folder.metrics import MetricsLog
from tests.worlds.one_rank import Learner
from tests.worlds.tiny_groups import payloads, random_groups
from tests.worlds.tiny_models import settings, tiny_llama

STEPS = 3


def recorded_run(folder: Path, run: RunSettings, model: Path, saved: int = STEPS) -> Path:
    """A run folder as a run of one rank leaves it: settings, metrics, experience, a checkpoint of the step
    `saved`. Every second step has half of its groups."""
    learner = Learner(run, model, 0, 1)
    with MetricsLog(folder, tensorboard=False, lineage=1) as log:
        for step in range(1, STEPS + 1):
            groups = random_groups(2 if step % 2 else 4, seed=step)
            learner.prepare(step, *payloads(groups), len(groups) / run.rollout.prompts_per_step)
            report = learner.run(step)
            names = ("loss", "grad_norm", "entropy", "kl", "learning_rate")
            log.write({"step": step, "lineage": 1} | {name: report[name] for name in names})
            learner.write_experience(step, folder / "experience")
            if step == saved:
                aside = aside_folder(folder / "checkpoints", step, 1)
                learner.export(aside / "hf")
                learner.save(aside / "deepspeed")
                ids = learner.trained_group_ids(step)
                seal(folder / "checkpoints", run.name, 1, step, ids, fixed_settings(run, "a"))
    rewrite(folder, run)
    return folder


def rewrite(folder: Path, run: RunSettings) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(run.model_dump(mode="json")))


def changed(run: RunSettings, **learner: object) -> RunSettings:
    return run.model_copy(update={"learner": run.learner.model_copy(update=learner)})


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def run(llama: Path) -> RunSettings:
    one = settings(llama, learning_rate=1e-3)
    rollout = one.rollout.model_copy(update={"prompts_per_step": 4})
    prompts = one.prompts.model_copy(update={"max_tokens": 32})
    return one.model_copy(update={"rollout": rollout, "prompts": prompts})


@pytest.fixture
def folder(tmp_path: Path, run: RunSettings, llama: Path) -> Path:
    return recorded_run(tmp_path / "run", run, llama)


def test_a_run_is_replayed_to_the_bit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(folder) == 0
    printed = capsys.readouterr().out
    assert "the weights of the checkpoint are equal to the bit" in printed
    assert "differs" not in printed


def test_one_step_is_learned_again_from_the_checkpoint_before_it_or_from_the_first_step(
    tmp_path: Path, run: RunSettings, llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recorded_run(tmp_path / "run", run, llama, saved=2)
    (folder / "experience" / "step-000001.arrow").unlink()
    assert replay(folder, until=3) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("from the checkpoint of step 2\n")
    assert [line.split()[0] for line in printed.splitlines()[2:]] == ["3"]
    with pytest.raises(UserError, match="has no record of step 1, and steps 1 to 2 are learned again"):
        replay(folder, until=2)


def test_another_learning_rate_is_noticed_by_norm_and_weights_too(
    folder: Path, run: RunSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(folder, changed(run, learning_rate=0.1))
    assert replay(folder) == 1
    printed = capsys.readouterr().out
    assert "differs: learning_rate" in printed
    assert "grad_norm" in printed
    assert "entropy" in printed
    assert "differs: weights" in printed


def with_figure(folder: Path, name: str) -> None:
    """Another figure in the record of every step."""
    file = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row | {name: 1.5}) + "\n" for row in rows))


def scale_advantages(folder: Path) -> None:
    file = folder / "experience" / "step-000002.arrow"
    column = SCHEMA.get_field_index("advantage")
    records = [
        record.set_column(
            column,
            SCHEMA.field(column),
            pa.array([2 * value for value in record.column("advantage").to_pylist()], pa.float64()),
        )
        for record in decode(file.read_bytes(), file.name)
    ]
    file.write_bytes(encode(records))


def other_weights(folder: Path) -> None:
    (hf,) = (folder / "checkpoints").glob("step-*/hf/model.safetensors")
    content = bytearray(hf.read_bytes())
    content[-2000:] = bytes(2000)
    hf.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (scale_advantages, "differs: advantages"),
        (other_weights, "differs: weights"),
        (lambda folder: with_figure(folder, "entropy"), "differs: entropy"),
        (lambda folder: with_figure(folder, "grad_norm"), "differs: grad_norm"),
        (lambda folder: with_figure(folder, "kl"), "differs: kl"),
    ],
)
def test_every_record_is_compared(
    folder: Path, damage: Callable[[Path], None], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder)
    assert replay(folder) == 1
    assert named in capsys.readouterr().out
