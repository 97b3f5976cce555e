"""The card of an exported model: where it comes from, and what its evaluation found."""

import json
from pathlib import Path

import yaml

from dynalign.configs.load import load_run
from dynalign.launch.commands.evaluate_pairwise import evaluation_folder
from dynalign.run_folder import durable, layout
from dynalign.run_folder.content import model_hashes

CARD = "README.md"
"""Its name in the folder of a model, which the hub shows."""


def add_card(run_folder: Path, model: Path) -> str:
    """Writes the card of a run's model into the model's folder. Returns what became of the evaluation.

    An evaluation of other weights, such as another step's, is left out. Raises OSError."""
    settings = load_run(str(run_folder / layout.CONFIG)).settings
    found = evaluation_folder(run_folder)
    said = f"no evaluation in {found}"
    evaluation = ""
    try:
        content = json.loads((found / "evaluation.json").read_text("utf-8"))["facts"]["content"]
        if content == " ".join(model_hashes(model).values()):
            evaluation = "\n" + (found / "evaluation.md").read_text("utf-8")
            said = f"with the evaluation in {found}"
        else:
            said = f"without the evaluation in {found}, which is of other weights"
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError):
        said = f"without the evaluation in {found}, which cannot be read"
    durable.write(model / CARD, model_card(run_folder.name, settings.model, settings.steps) + evaluation)
    return said


def model_card(run: str, base: str, steps: int) -> str:
    """Front matter and head of the card."""
    facts: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["dynalign", "grpo"],
    }
    if not base.startswith(("/", ".", "~")) and base.count("/") == 1:
        facts["base_model"] = base  # the hub accepts only the id of one of its models
    front = yaml.safe_dump(facts, sort_keys=True)
    named = base.rsplit("/", 1)[-1] if base.startswith(("/", ".", "~")) else base
    return (
        f"---\n{front}---\n\n# {run}\n\n"
        "Aligned with a written value definition by dynalign: GRPO on a judge's scores, with the system "
        "prompt that carries the value left out of the gradient (arXiv 2512.05464).\n\n"
        f"- base model: {named}\n- steps: {steps}\n"
    )
