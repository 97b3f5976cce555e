"""The prompts of `experiment transfer`: those of the run, and prompts of another source to hold out."""

import json
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.schema import RunSettings
from dynalign.evaluation.experiments.transfer import FOREIGN, HOME
from dynalign.launch.prompt_check import prompts_of
from dynalign.rollout.prompts import load_prompts
from dynalign.run_folder import durable

FILE = "prompts.jsonl"
"""Its name in the experiment's folder."""


def write_transfer_prompts(settings: RunSettings, foreign: str | None, folder: Path) -> list[str]:
    """Writes the prompts, and returns the settings with which a run takes them.

    Held out are the first `heldout.prompts` of the run's own held-out prompts, and as many of the other
    source; of a text that both have, the foreign one is left out. Raises UserError for a source that is
    missing or cannot be read, and for fewer than two prompts of a set."""
    if foreign is None:
        remedy = "write foreign=SOURCE: a file or folder of prompts, or hub:owner/name:split"
        raise UserError([Mistake("foreign", None, "is missing", remedy)])
    home = prompts_of(settings)
    there = load_prompts(foreign)
    known = {prompt.prompt.strip() for prompt in (*home.train, *home.heldout)}
    most = settings.heldout.prompts
    others = [each for each in (*there.heldout, *there.train) if each.prompt.strip() not in known][:most]
    mistakes = []
    for place, found in (("prompts.source", home.heldout[:most]), ("foreign", others)):
        if len(found) < 2:
            value = settings.prompts.source if place == "prompts.source" else foreign
            rule = f"has {len(found)} prompts to hold out, and two or more are needed"
            mistakes.append(
                Mistake(place, value, rule, "name a source with more prompts that are not the run's own")
            )
    if mistakes:
        raise UserError(mistakes)
    rows = [{"id": each.id, "prompt": each.prompt, "split": "train"} for each in home.train]
    held = [(HOME, each) for each in home.heldout[:most]] + [(FOREIGN, each) for each in others]
    rows += [{"id": f"{set_}{each.id}", "prompt": each.prompt, "split": "heldout"} for set_, each in held]
    file = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    durable.write(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return [
        f"prompts.source={json.dumps(str(file))}",
        'prompts.column="prompt"',
        "prompts.earlier_turns=false",
        f"heldout.prompts={len(held)}",
    ]
