import json
from pathlib import Path

import pytest

from dynalign.configs.errors import RunFailed, UserError
from dynalign.configs.load import load_run
from dynalign.launch.commands.export import export
from dynalign.launch.commands.hub_push import push
from dynalign.launch.resume.open_run import config_lines
from dynalign.run_folder import layout
from dynalign.run_folder.checkpoint import seal
from dynalign.run_folder.content import model_hashes
from tests.worlds.small_hub import TOKEN, small_hub


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a checkpoint whose model has a few bytes."""
    folder = tmp_path / "runs" / "mine"
    model = layout.aside_folder(folder / layout.CHECKPOINTS, 3, 1) / layout.EXPORTED_MODEL
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    seal(folder / layout.CHECKPOINTS, "mine", 1, 3, (0,), {})
    (folder / layout.CONFIG).write_text("\n".join(config_lines(load_run("quickstart"))))
    return folder


def evaluation(run: Path, content: str) -> None:
    """Writes an evaluation of a model with that content."""
    folder = run.with_name("mine-evaluation")
    folder.mkdir()
    (folder / "evaluation.json").write_text(json.dumps({"facts": {"content": content}}))
    (folder / "evaluation.md").write_text("## Evaluation: mine against its base\n")


def test_the_evaluation_of_a_run_goes_beside_its_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = layout.step_folder(run / layout.CHECKPOINTS, 3) / layout.EXPORTED_MODEL
    evaluation(run, " ".join(model_hashes(checkpoint).values()))
    out = run.parent / "out"
    export(run, out, None)
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "# mine" in card
    assert "## Evaluation: mine against its base" in card
    assert (out / "model.safetensors").read_bytes() == b"weights"
    assert "with the evaluation in" in capsys.readouterr().out


def test_an_evaluation_of_other_weights_is_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation(run, "other")
    export(run, run.parent / "out", None)
    assert "Evaluation" not in (run.parent / "out" / "README.md").read_text()
    assert "which is of other weights" in capsys.readouterr().out


def test_a_model_is_pushed_with_its_card_as_a_private_one(run: Path) -> None:
    out = run.parent / "out"
    export(run, out, None)
    with small_hub() as hub:
        assert push(out, "me/aligned", hub.address, TOKEN) == f"{hub.address}/me/aligned"
        assert hub.created[0]["visibility"] == "private"
        assert hub.created[0]["organization"] == "me"
        assert set(hub.files) == {"README.md", "config.json", "model.safetensors"}
        assert hub.files["model.safetensors"] == b"weights"


def test_a_push_that_the_hub_refuses_says_where_the_model_is(run: Path) -> None:
    out = run.parent / "out"
    export(run, out, None)
    with small_hub() as hub, pytest.raises(RunFailed, match="was not uploaded") as caught:
        push(out, "me/aligned", hub.address, "hf_wrong")
    assert str(out) in str(caught.value)
    assert out.is_dir()


def test_a_push_to_no_name_is_refused_before_anything_is_copied(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(UserError, match="is not of the form OWNER/NAME"):
        export(run, run.parent / "out", None, "aligned")
    assert not (run.parent / "out").exists()
